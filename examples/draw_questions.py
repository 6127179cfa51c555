"""Draw scenes and write questions about them, for a first `qlip compare`.

python examples/draw_questions.py scenes
qlip compare scenes scenes/questions.csv --model pocket-qwen --size null --budgets '[32,64]'
"""

import csv
import sys
from pathlib import Path
from random import Random

from qlip.data.language import absent, ask_presence
from qlip.data.pictures import small_objects


def main(folder: Path, count: int = 4, seed: int = 0) -> None:
    """Fill a folder with scenes and ``questions.csv``: two questions about what is there, one open one."""
    folder.mkdir(parents=True, exist_ok=True)
    random = Random(seed)
    rows = [("image", "question", "answer")]
    for index, (picture, scene) in enumerate(small_objects(count, seed)):
        name, thing = f"{index}.jpg", scene[0]
        picture.save(folder / name, quality=95)
        rows.append((name, ask_presence(thing.colour, thing.shape), "yes"))
        rows.append((name, ask_presence(*absent(scene, "adversarial", random)), "no"))
        rows.append((name, f"What is the color of the {thing.shape}?", ""))
    with (folder / "questions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
