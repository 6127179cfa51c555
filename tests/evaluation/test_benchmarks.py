"""The seven adaptors on rows in the real schema: what is asked, and what the answers are worth."""

import pytest
import torch
from torchmetrics.functional.classification import binary_f1_score, binary_precision, binary_recall

from qlip.evaluation.benchmarks import BENCHMARKS, get_benchmark
from qlip.evaluation.benchmarks.base import SINGLE_LETTER, SINGLE_WORD
from qlip.evaluation.run.prompts import CHATS
from qlip.evaluation.statistics import score
from qlip.images.read import to_rgb
from tests.evaluation.local_data import PAPER

ASKED = {"vstar": 12, "mmbench": 12, "pope": 8, "cvbench": 12, "scienceqa": 12, "mme": 12, "realworldqa": 12}
ASK = "what colour is the circle ?"


@pytest.fixture(scope="session")
def sources(data_folders):
    return {name: BENCHMARKS[name].load(data_folders[name]) for name in PAPER}


def answered(benchmark, questions, raws, style="llava"):
    """Records of given replies."""
    records = []
    for question, raw in zip(questions, raws, strict=True):
        parsed = raw if question.candidates else benchmark.parse(raw, question.options, style)
        records.append(
            {
                "id": question.id,
                "prompt": question.prompt,
                "parsed": parsed,
                "answer": question.answer,
                "correct": benchmark.correct(parsed, question.answer),
                "group": question.group,
                "unit": question.unit or question.id,
            }
        )
    return records


def values(benchmark, questions, raws, style="llava"):
    return {
        name: estimate.value for name, estimate in score(benchmark, answered(benchmark, questions, raws, style)).items()
    }


@pytest.mark.parametrize("style", CHATS)
@pytest.mark.parametrize("name", PAPER)
def test_right_answers_score_full_and_no_answers_nothing(name, style, sources):
    benchmark = BENCHMARKS[name]
    questions = benchmark.questions(sources[name], style)
    assert len({question.id for question in questions}) == len(questions) == ASKED[name]
    right = values(benchmark, questions, [question.answer for question in questions], style)
    full = {"mme": 600}.get(name, 100)
    assert right[benchmark.primary] == full
    assert next(iter(right)) == benchmark.primary
    silent = values(benchmark, questions, ["..." for _ in questions], style)
    assert silent[benchmark.primary] == (pytest.approx(200 / 3) if (name, style) == ("pope", "llava") else 0)


@pytest.mark.parametrize("name", PAPER)
def test_every_question_has_its_picture(name, sources):
    source = sources[name]
    sizes = source.sizes()
    for question in BENCHMARKS[name].questions(source, "llava")[::5]:
        image = source.image(question.row)
        assert sizes[question.row][1] in (112, 126)
        assert str(image).endswith(".jpg") if name == "vstar" else to_rgb(image).size == sizes[question.row]


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="benchmark: got 'gqa'; known are vstar, mmbench, pope, cvbench"):
        get_benchmark("gqa")


PROMPTS = [
    ("vstar", "llava", f"{ASK}\n(A) red\n(B) green\n(C) blue\n(D) circle\n{SINGLE_LETTER}"),
    ("vstar", "vlmevalkit", f"{ASK}\nA. red\nB. green\nC. blue\nD. circle\n{SINGLE_LETTER}"),
    ("vstar", "lmms", f"{ASK}\nA. red\nB. green\nC. blue\nD. circle\n{SINGLE_LETTER}\n{SINGLE_LETTER}"),
    ("mmbench", "llava", f"{ASK}\nA. red\nB. green\nC. blue\n{SINGLE_LETTER}"),
    ("mmbench", "lmms", f"{ASK} There are several options:\nA. red\nB. green\nC. blue\n\n{SINGLE_LETTER}"),
    ("pope", "llava", f"is there a circle in the picture ?\n{SINGLE_WORD}"),
    ("pope", "vlmevalkit", "is there a circle in the picture ? Please answer yes or no."),
    ("cvbench", "llava", f"{ASK} Select from the following choices.\n(A) red\n(B) green\n{SINGLE_LETTER}"),
    ("cvbench", "vlmevalkit", f"{ASK} Select from the following choices.\n(A) red\n(B) green"),
    (
        "cvbench",
        "lmms",
        "Note: You only need to respond with A, B without providing any additional information.\n\n"
        f"{ASK} Select from the following choices.\n(A) red\n(B) green",
    ),
    ("scienceqa", "llava", f"there is a circle\n{ASK}\nA. red\nB. green\n{SINGLE_LETTER}"),
    ("scienceqa", "lmms", f"Context: there is a circle\n{ASK}\nA. red\nB. green\n{SINGLE_LETTER}"),
    ("mme", "llava", f"is there a circle in the picture ?\n{SINGLE_WORD}"),
    ("mme", "vlmevalkit", "is there a circle in the picture ? Please answer yes or no."),
    (
        "realworldqa",
        "llava",
        f"{ASK}\n\nA. red\nB. green\nC. blue\n"
        "Please answer directly with only the letter of the correct option and nothing else.",
    ),
    ("realworldqa", "vlmevalkit", f"{ASK}\nA. red\nB. green\nC. blue\n{SINGLE_LETTER}"),
]


@pytest.mark.parametrize(("name", "style", "prompt"), PROMPTS, ids=lambda value: value if len(str(value)) < 12 else "")
def test_prompts_to_the_letter(name, style, prompt, sources):
    assert BENCHMARKS[name].questions(sources[name], style)[0].prompt == prompt


def test_the_frame_of_the_conversation_to_the_letter():
    assert CHATS["llava"].format("Q") == (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
        "and polite answers to the user's questions. USER: <image>\nQ ASSISTANT:"
    )
    assert CHATS["vlmevalkit"].format("Q").endswith("to the human's questions. USER:  <image> Q ASSISTANT: ")
    assert CHATS["lmms"] == CHATS["llava"]


def test_lectures_are_never_shown(sources):
    assert not any("NEVER" in q.prompt for q in BENCHMARKS["scienceqa"].questions(sources["scienceqa"], "llava"))


def test_mmbench_counts_a_question_only_if_every_rotation_is_right(sources):
    benchmark = BENCHMARKS["mmbench"]
    questions = benchmark.questions(sources["mmbench"], "llava")
    raws = [question.answer for question in questions]
    raws[1] = "Z"  # a later rotation of the first question
    got = values(benchmark, questions, raws)
    assert (got["accuracy"], got["vanilla"], got["attribute"], got["relation"]) == (75, 100, 50, 100)
    assert {question.unit for question in questions} == {"0", "1", "2", "3"}
    assert "there is a circle" in questions[3].prompt
    assert "nan" not in "".join(question.prompt for question in questions)
    assert [list(question.options) for question in questions[:2]] == [["A", "B", "C"]] * 2


def test_pope_asks_once_what_several_splits_share_and_counts_it_in_each(sources):
    benchmark = BENCHMARKS["pope"]
    questions = benchmark.questions(sources["pope"], "vlmevalkit")
    shared = [question for question in questions if "," in question.group]
    assert [question.group for question in shared] == ["adversarial,popular,random"] * 2
    raws = ["maybe" if question is shared[0] else "yes" for question in questions]
    got = values(benchmark, questions, raws, "vlmevalkit")
    said = torch.tensor(
        [raw == "yes" for raw, q in zip(raws, questions, strict=True) for _ in q.group.split(",")]
    ).int()
    true = torch.tensor([q.answer == "yes" for q in questions for _ in q.group.split(",")]).int()
    assert len(said) == 12
    for name, metric in {"f1": binary_f1_score, "precision": binary_precision, "recall": binary_recall}.items():
        assert got[name] == pytest.approx(100 * metric(said, true).item())
    assert got["yes_ratio"] == pytest.approx(75)  # of the answers; lmms-eval reports it of the truth, here 50
    assert got["accuracy"] == pytest.approx(25)
    assert got["f1_mean"] == pytest.approx(got["popular/f1"])


def test_cvbench_is_a_mean_of_means(sources):
    benchmark = BENCHMARKS["cvbench"]
    questions = benchmark.questions(sources["cvbench"], "llava")
    wrong = {0, 5, 6, 8}  # one of five ADE20K, two of three COCO, one of four Omni3D
    raws = ["?" if i in wrong else f"({question.answer})" for i, question in enumerate(questions)]
    got = values(benchmark, questions, raws)
    assert got["2D"] == pytest.approx(100 * (4 / 5 + 1 / 3) / 2)
    assert got["combined"] == pytest.approx((got["2D"] + 75) / 2)
    assert got["micro"] == pytest.approx(100 * 8 / 12)
    assert [len(question.options) for question in questions[:2]] == [2, 3]


def test_mme_adds_accuracy_and_pairs(sources):
    benchmark = BENCHMARKS["mme"]
    questions = benchmark.questions(sources["mme"], "vlmevalkit")
    raws = [question.answer for question in questions]
    raws[0] = "no"  # half of one of two pairs of existence
    got = values(benchmark, questions, raws, "vlmevalkit")
    assert got["existence"] == 75 + 50
    assert got["perception"] == 125 + 200 + 200
    assert got["cognition"] == 400


@pytest.mark.parametrize(("raw", "parsed"), [("Yes it is", "yes"), ("no", "no"), ("well yes", None), ("", None)])
def test_lmms_reads_the_first_four_characters_of_mme(raw, parsed):
    assert BENCHMARKS["mme"].parse(raw, {}, "lmms") == parsed


def test_realworldqa_takes_letters_or_words(sources):
    benchmark = BENCHMARKS["realworldqa"]
    questions = benchmark.questions(sources["realworldqa"], "llava")
    assert [question.group for question in questions[:3]] == ["letters", "letters", "words"]
    assert [question.answer for question in questions[:3]] == ["A", "B", "red"]
    raws = ["A", "B", "Red."] + ["" for _ in questions[3:]]
    got = values(benchmark, questions, raws)
    assert (got["accuracy"], got["words"]) == (25, 25)


def test_vstar_by_likelihood_puts_the_right_sentence_first(sources):
    questions = BENCHMARKS["vstar"].questions(sources["vstar"], "llava", "likelihood")
    assert questions[0].candidates[0] == questions[0].answer == "the circle is red"
    assert [len(question.candidates) for question in questions[::8]] == [4, 2]
    assert questions[0].prompt == ASK


def test_vstar_by_likelihood_needs_the_files_beside_the_pictures(sources):
    with pytest.raises(ValueError, match=r"scoring: got 'likelihood', but .* has no folder"):
        BENCHMARKS["vstar"].questions(sources["pope"], "llava", "likelihood")


def test_a_folder_written_by_save_to_disk_is_read_as_well(sources, tmp_path):
    sources["mme"].rows.save_to_disk(str(tmp_path / "saved"))
    again = BENCHMARKS["mme"].load(tmp_path / "saved")
    assert again.rows["question"] == sources["mme"].rows["question"]
    assert again.image(1) == sources["mme"].image(1)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data: got .*nowhere, which is no folder; takes a copy"):
        BENCHMARKS["mme"].load(tmp_path / "nowhere")


def test_a_branch_is_pinned_to_its_commit(monkeypatch):
    asked = []

    class Hub:
        def dataset_info(self, name, revision):
            return type("Info", (), {"sha": f"{name}@{revision}"})

    monkeypatch.setattr("qlip.evaluation.benchmarks.source.HfApi", Hub)
    monkeypatch.setattr("datasets.load_dataset", lambda *args, **kwargs: asked.append((args, kwargs)))
    assert BENCHMARKS["pope"].load(None).revision == "lmms-lab/POPE@None"
    assert BENCHMARKS["cvbench"].load(None).revision == "bc284db50d036958861cb60cdd7b77612052ce0d"
    assert BENCHMARKS["cvbench"].load(None, "mine/CV", "v2").revision == "mine/CV@v2"
    assert asked[-1] == (("mine/CV", None), {"split": "test", "revision": "mine/CV@v2"})
