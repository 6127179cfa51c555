"""The seven benchmarks as local folders in their real schema, with twelve questions or so each, made from drawn pictures."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import datasets

from qlip.evaluation.benchmarks import BENCHMARKS
from tests.families.tiny_llava import scene

# the drawn ones: tests/evaluation/test_pocket_benchmarks.py; the user's own: tests/evaluation/test_local.py
PAPER = [name for name in BENCHMARKS if not name.endswith(("-pocket", "-photo")) and name != "local"]

COLOURS = ["red", "green", "blue"]
LETTERS = "ABCD"
REQUEST = "Answer with the option's letter from the given choices directly."


def picture(seed: int, width: int = 140, height: int = 112) -> dict[str, object]:
    """A picture as parquet files of the Hub hold it: encoded bytes."""
    file = io.BytesIO()
    scene(width + 14 * (seed % 4), height, seed).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": f"{seed}.png"}


def save(root: Path, split: str, rows: list[dict], config: str | None = None) -> Path:
    """A copy of a Hub repository: parquet files, and the card that says which belong to which split."""
    data = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    folder = root / (config or "data")
    folder.mkdir(parents=True)
    data.to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
    card = ["---", "configs:", f"- config_name: {config or 'default'}", "  data_files:", f"  - split: {split}"]
    card += [f"    path: {folder.name}/{split}-*", "---", ""]
    (root / "README.md").write_text("\n".join(card))
    return root


def vstar(root: Path) -> Path:
    rows = []
    for i in range(12):
        kind, count = ("direct_attributes", 4) if i < 8 else ("relative_position", 2)
        image = Path(kind, f"sa_{4690 + i}.jpg")
        (root / kind).mkdir(parents=True, exist_ok=True)
        scene(210 + 28 * (i % 3), 126, i).save(root / image)
        options = ["red", "green", "blue", "circle"][:count]
        sentences = [f"the circle is {option}" for option in options]
        notes = {"target_object": ["circle"], "bbox": [[1, 2, 3, 4]], "question": "what colour is the circle ?"}
        (root / image).with_suffix(".json").write_text(json.dumps({**notes, "options": sentences}))
        listed = "\n".join(f"({letter}) {option}" for letter, option in zip(LETTERS, options, strict=False))
        text = f"what colour is the circle ?\n{listed}\n{REQUEST}"
        rows.append(
            {
                "image": str(image),
                "text": text,
                "category": kind,
                "label": LETTERS[i % count],
                "question_id": str(i % 8),
            }
        )
    (root / "test_questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def mmbench(root: Path) -> Path:
    rows = []
    for question in range(4):
        for rotation in range(3):
            options = COLOURS[rotation:] + COLOURS[:rotation]
            rows.append(
                {
                    "index": str(question + 1_000_000 * rotation),
                    "question": "what colour is the circle ?",
                    "hint": "there is a circle" if question == 1 else "nan",
                    "answer": LETTERS[options.index("red")],
                    **dict(zip("ABC", options, strict=True)),
                    "D": "nan" if question else None,
                    "category": "attribute" if question < 2 else "relation",
                    "image": picture(question),
                    "source": "drawn",
                    "L2-category": "perception",
                    "comment": "nan",
                    "split": "dev",
                }
            )
    return save(root, "dev", rows, "en")


def pope(root: Path) -> Path:
    rows = []
    for split in ("adversarial", "popular", "random"):
        for i in range(4):
            thing = "circle" if i % 2 == 0 else f"{split} square"  # what is there is asked in every split
            rows.append(
                {
                    "id": str(len(rows)),
                    "question_id": str(i + 1),
                    "question": f"is there a {thing} in the picture ?",
                    "answer": "yes" if i % 2 == 0 else "no",
                    "image_source": f"COCO_val2014_{i // 2:012d}",
                    "image": picture(i // 2),
                    "category": split,
                }
            )
    return save(root, "test", rows)


def cvbench(root: Path) -> Path:
    rows = []
    plan = [("2D", "Count", "ADE20K")] * 5 + [("2D", "Relation", "COCO")] * 3 + [("3D", "Depth", "Omni3D")] * 4
    for i, (kind, task, source) in enumerate(plan):
        choices = COLOURS[: 2 + i % 2]
        listed = "\n".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
        question = "what colour is the circle ?"
        rows.append(
            {
                "idx": i,
                "type": kind,
                "task": task,
                "image": picture(i),
                "question": question,
                "choices": choices,
                "answer": f"({LETTERS[i % len(choices)]})",
                "prompt": f"{question} Select from the following choices.\n{listed}",
                "filename": f"{i}.png",
                "source": source,
                "source_dataset": source,
                "source_filename": "",
                "target_class": "",
                "target_size": 0,
                "bbox": [[0.0, 0.0, 1.0, 1.0]],
            }
        )
    return save(root, "test", rows)


def scienceqa(root: Path) -> Path:
    rows = [
        {
            "image": picture(i),
            "question": "what colour is the circle ?",
            "choices": COLOURS[: 2 + i % 2],
            "answer": i % 2,
            "hint": "there is a circle" if i % 3 == 0 else "",
            "task": "closed choice",
            "grade": "grade2",
            "subject": "natural science" if i % 2 else "social science",
            "topic": "physics",
            "category": "light",
            "skill": "look",
            "lecture": "NEVER SHOWN",
            "solution": "NEVER SHOWN",
        }
        for i in range(12)
    ]
    return save(root, "test", rows, "ScienceQA-IMG")


def mme(root: Path) -> Path:
    rows = []
    for i, task in enumerate(["existence", "existence", "count", "OCR", "code_reasoning", "text_translation"]):
        for answer in ("Yes", "No"):
            thing = "circle" if answer == "Yes" else "square"
            rows.append(
                {
                    "question_id": f"{task}/{i:04d}.png",
                    "image": picture(i),
                    "question": f"is there a {thing} in the picture ? Please answer yes or no.",
                    "answer": answer,
                    "category": task,
                }
            )
    return save(root, "test", rows)


def realworldqa(root: Path) -> Path:
    rows = []
    for i in range(12):
        if i % 3 == 2:
            ask = "what colour is the circle ?\nPlease answer directly with a single word or number."
            answer = COLOURS[i % 2].title()
        else:
            ask = (
                "what colour is the circle ?\n\nA. red\nB. green\nC. blue\n"
                "Please answer directly with only the letter of the correct option and nothing else."
            )
            answer = LETTERS[i % 3]
        rows.append({"image": picture(i), "question": ask, "answer": answer})
    return save(root, "test", rows)


MAKERS: dict[str, Callable[[Path], Path]] = {
    maker.__name__: maker for maker in (vstar, mmbench, pope, cvbench, scienceqa, mme, realworldqa)
}
