"""The page of ``qlip compare``: a sentence, a table of arms, then every picture with its leaves and answers."""

import html
from collections.abc import Iterator, Mapping
from pathlib import Path

from qlip._version import __version__
from qlip.evaluation.benchmarks.base import Record
from qlip.evaluation.report.tables import delta
from qlip.evaluation.statistics import Estimate
from qlip.files import write_text
from qlip.tools.compare import Arm, Comparison, agree, answers_table, draw_pictures

METHOD = (
    "Both models have the same weights and answer greedily. Scaled down is the stock model whose processor makes the picture small "
    "enough for the budget, where it can. Intervals are 95 %, from 2000 bootstrap resamples of whole pictures; the "
    "difference is paired: the same questions, the same resamples; a star marks one whose interval leaves zero out. Agreement is the "
    "share of answers that are the stock model's, whatever their case and punctuation; right is an answer that is one of the right "
    "ones in the same way. Tokens are those of the picture. Seconds are the median of what the model takes for an answer, reading the "
    "picture included and preparing it on the CPU not; in a batch it is shared out equally."
)
STYLE = """
body{font:16px/1.5 system-ui,-apple-system,'Segoe UI',sans-serif;color:#1c1f23;background:#fff;max-width:1180px;margin:2rem auto;padding:0 1.2rem}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 .6rem;overflow-wrap:anywhere}h2{font-size:1rem;margin:0 0 .6rem;overflow-wrap:anywhere}
p{max-width:80ch;margin:.4rem 0 1rem;color:#353b41}.lead{font-size:1.1rem;color:#1c1f23}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;margin:.6rem 0 1rem}
th{font-weight:600;font-size:.85rem;color:#4b5259;text-align:left;vertical-align:bottom;padding:.3rem .8rem .3rem .3rem;border-bottom:2px solid #cfd5db}
td{padding:.4rem .8rem .4rem .3rem;border-bottom:1px solid #e6e9ec;vertical-align:top;overflow-wrap:anywhere}
td.arm{font-weight:600}td.question{font-weight:600;width:28%;min-width:12rem}td.answer{min-width:9rem}.said{white-space:pre-wrap}
small{display:block;font-size:.8rem;font-weight:400;color:#4b5259}
.gain,.right{color:#1b6e3b;font-weight:600}.loss,.wrong{color:#b03a2e;font-weight:600}td.other{background:#fff1d6}
section{border-top:1px solid #d8dde2;padding:1.4rem 0 .4rem}
.pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(15rem,24rem));gap:.8rem}figure{margin:0}
figure img{max-width:100%;max-height:22rem;display:block}figcaption{font-size:.85rem;color:#4b5259;margin-top:.2rem}
label{display:inline-block;padding:.3rem 0;cursor:pointer}body:has(#differ:checked) .same{display:none}
summary{cursor:pointer;color:#2b5fa8}footer{margin:2rem 0 1rem;color:#6a727a;font-size:.8rem;overflow-wrap:anywhere}
@media(max-width:640px){body{margin:1rem auto}thead{display:none}table,tbody,tr{display:block}td:empty{display:none}
tr{padding:.5rem 0;border-bottom:1px solid #cfd5db}td,td.question,td.answer{display:block;width:auto;min-width:0;border:0;padding:.15rem .3rem}
td[data-label]::before{content:attr(data-label) ": ";color:#4b5259;font-weight:400}
.pictures{grid-template-columns:1fr 1fr}figure img{max-height:none}td.answer small{display:inline;margin-left:.4rem}}
"""


def write_page(comparison: Comparison, out: Path) -> Path:
    """Write ``index.html``, ``answers.csv`` and the pictures; returns the page."""
    answers_table(comparison).write_csv(out)
    pictures = draw_pictures(comparison, out)
    title = f"{html.escape(Path(comparison.model).name)}, stock and converted"
    sections = "".join(_section(image, comparison, pictures) for image in _images(comparison))
    body = (
        f"<h1>{title}</h1><p class='lead'>{_lead(comparison)}</p>{_summary(comparison)}"
        f"<details><summary>How this was measured</summary><p>{METHOD}</p></details>"
        f"<p><label><input type='checkbox' id='differ'> Show only questions on which the answers differ</label></p>{sections}"
    )
    page = (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{title}</title>"
        f"<meta name='viewport' content='width=device-width'><style>{STYLE}</style></head><body>{body}"
        f"<footer>qlip {__version__}; {html.escape(comparison.source.origin)}; answers side by side: answers.csv</footer>"
        f"</body></html>\n"
    )
    write_text(out / "index.html", page)
    return out / "index.html"


def lines(comparison: Comparison) -> Iterator[str]:
    """The table of arms as lines of text."""
    for arm in comparison.arms:
        words = [f"{arm.tokens:.0f} tokens", f"{arm.seconds:.2g} s an answer"]
        words += [f"the stock model's answer on {_interval(arm.agreement)}"] if arm.agreement else []
        words += [f"right on {_interval(arm.accuracy)}"] if arm.accuracy else []
        words += [f"which is {delta(arm.difference)}"] if arm.difference else []
        yield f"{arm.name}: {', '.join(words)}"


def _images(comparison: Comparison) -> list[str]:
    """The pictures in the order of the questions."""
    order = sorted(comparison.stock.answers.values(), key=_row)
    return list(dict.fromkeys(record["unit"] for record in order))


def _row(record: Record) -> int:
    return int(record["id"].split(":")[0])


def _lead(comparison: Comparison) -> str:
    """What came out, in two sentences."""
    asked, images = len(comparison.stock.answers), len(_images(comparison))
    parts = []
    for budget, arm in comparison.converted.items():
        assert arm.agreement is not None
        share = 100 * arm.tokens / comparison.stock.tokens
        parts.append(f"on {arm.agreement.value:.0f} % of them with {arm.tokens:.0f} tokens ({share:.0f} %)")
        if scaled := comparison.scaled.get(budget):
            assert scaled.agreement is not None
            parts[-1] += f", where the picture scaled down to as many gives it on {scaled.agreement.value:.0f} %"
    many = f"{asked} question{'s' if asked != 1 else ''} about {images} picture{'s' if images != 1 else ''}"
    return (
        f"{many}. The stock model spends {comparison.stock.tokens:.0f} image tokens on one; the converted model gives the same "
        f"answer {'; '.join(parts)}."
    )


def _summary(comparison: Comparison) -> str:
    """The table of arms."""
    scored = comparison.stock.accuracy is not None
    head = ["", "image tokens", "of stock", "seconds an answer", "agrees with stock"]
    head += ["right", "less stock, in points"] if scored else []
    rows = []
    for arm in comparison.arms:
        cells = [
            f"{arm.tokens:.0f}",
            f"{100 * arm.tokens / comparison.stock.tokens:.0f} %",
            f"{arm.seconds:.2g}",
            _interval(arm.agreement),
        ]
        cells += [_interval(arm.accuracy), delta(arm.difference) if arm.difference else ""] if scored else []
        named = zip(head[1:], cells, strict=True)
        shown = "".join(f"<td{_mark(text)} data-label='{label}'>{text}</td>" for label, text in named)
        rows.append(f"<tr><td class='arm'>{arm.name}</td>{shown}</tr>")
    return _table(head, rows)


def _table(head: list[str], rows: list[str]) -> str:
    names = "".join(f"<th>{name}</th>" for name in head)
    return f"<div class='wide'><table><thead><tr>{names}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"


def _interval(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{estimate.value:.0f} % [{estimate.low:.0f}, {estimate.high:.0f}]"


def _mark(text: str) -> str:
    return {"+": " class='gain'", "-": " class='loss'"}.get(text[:1], "") if text.endswith("*") else ""


def _section(image: str, comparison: Comparison, pictures: Mapping[tuple[str, str], Path]) -> str:
    """One picture: as it is, its leaves, and every question about it."""
    records = [record for record in comparison.stock.answers.values() if record["unit"] == image]
    figures = []
    for arm in comparison.shown:
        tokens = next((r["tokens"] for r in arm.answers.values() if r["unit"] == image), 0)
        what = f"the picture; stock: {tokens} tokens" if arm is comparison.stock else f"leaves of {tokens} tokens"
        source = html.escape(pictures[image, arm.name].as_posix())
        figures.append(
            f"<figure><img loading='lazy' alt='{what}' src='{source}'><figcaption>{what}</figcaption></figure>"
        )
    rows = [_question(record, comparison) for record in sorted(records, key=_row)]
    same = "" if any(row.startswith("<tr class='differ'") for row in rows) else " class='same'"
    table = _table(["question", *(arm.name for arm in comparison.arms)], rows)
    return (
        f"<section{same}><h2>{html.escape(image)}</h2><div class='pictures'>{''.join(figures)}</div>{table}</section>"
    )


def _question(stock: Record, comparison: Comparison) -> str:
    """A question and the answers to it, side by side."""
    question = html.escape(comparison.source.rows[_row(stock)]["question"])
    truth = f"<small>right: {html.escape(stock['answer'])}</small>" if stock["answer"] else ""
    answers = [(arm, arm.answers.get(stock["id"])) for arm in comparison.arms]
    cells = "".join(_answer(arm, answer, stock) for arm, answer in answers)
    kind = "same" if all(answer and agree(answer, stock) for _, answer in answers) else "differ"
    return f"<tr class='{kind}'><td class='question'><span class='said'>{question}</span>{truth}</td>{cells}</tr>"


def _answer(arm: Arm, answer: Record | None, stock: Record) -> str:
    if answer is None:
        return f"<td class='answer other' data-label='{arm.name}'>its picture could not be read</td>"
    verdict = ""
    if answer["answer"]:
        verdict = " <span class='right'>✓</span>" if answer["correct"] else " <span class='wrong'>✗</span>"
    other = "" if agree(answer, stock) else " other"
    said = html.escape(answer["raw"]) or "<i>nothing</i>"
    return (
        f"<td class='answer{other}' data-label='{arm.name}'><span class='said'>{said}</span>{verdict}"
        f"<small>{answer['tokens']} tokens, {answer['seconds']:.2g} s</small></td>"
    )
