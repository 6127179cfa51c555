"""Time to the first token and to the whole answer, stock against converted, for every family at ever fewer tokens.

Run as ``python benchmarks/families.py``; ``--only Qwen3VL`` measures one family. The tiny models are those of the contract
(tests/families), the larger ones the same families, wider and deeper; weights are random, which speed does not notice.
"""

import argparse
import copy
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import skimage.data
import torch
from _report import machine, summarise, table, write_section
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModel, PreTrainedModel

import qlip
from qlip import PositionMLP, QlipVisionModel

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tiny models and their processors belong to the tests
from tests.families.row import PLACEHOLDER, VOCABULARY, Row
from tests.families.rows import ROWS

ANSWER = 8  # tokens
SHARES = {"equal": 1.0, "half": 0.5, "quarter": 0.25}
TOWER = {"intermediate_size": 1024, "num_hidden_layers": 6, "depth": 6, "num_attention_heads": 16, "num_heads": 16}
WORDS = {
    "hidden_size": 512,
    "intermediate_size": 1376,
    "num_hidden_layers": 8,
    "num_attention_heads": 32,
    "num_key_value_heads": 16,
    "head_dim": 16,
}
VIT_L = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
ONCE = {"bakllava", "llava over clip, class token", "internvl layer -2"}  # variants of families that are there already


def larger(model: PreTrainedModel) -> PreTrainedModel:
    """A model of the same family with a tower of width 256 and 6 layers, and words of width 512 and 8 layers."""
    values = model.config.to_dict()
    tower, words = values["vision_config"], values["text_config"]
    width = "embed_dim" if "embed_dim" in tower else "hidden_size"
    tower.update({name: value for name, value in TOWER.items() if name in tower} | {width: 256})
    for name in ("out_hidden_size", *(["hidden_size"] if width == "embed_dim" else [])):
        tower.update({name: WORDS["hidden_size"]} if name in tower else {})
    if "projection_dim" in tower:  # of PaliGemma, into the words' width
        values["projection_dim"] = tower["projection_dim"] = WORDS["hidden_size"]
    words.pop("layer_types", None)
    words.update({name: value for name, value in WORDS.items() if name != "head_dim" or words.get("head_dim")})
    return type(model)(type(model.config)(**values)).eval()


def best(functions: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Milliseconds of processor time of each, the best of rounds in which they take turns, after one to warm up."""
    took = dict.fromkeys(functions, float("inf"))
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            start = time.process_time()
            function()
            if repeat:
                took[name] = min(took[name], 1000 * (time.process_time() - start))
    return took


@torch.inference_mode()
def answer(model: Any, inputs: Any, tokens: int) -> Any:
    """A greedy answer of a fixed length."""
    return model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)


def measure(row: Row, model: PreTrainedModel, repeats: int) -> list[str]:
    """Image tokens; milliseconds of the stock model, and the converted one's as parts of them, to the first token and to the last.

    Raises:
        RuntimeError: if the two do not answer alike at equal tokens.
    """
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0
    model.generation_config.suppress_tokens = [0, *range(PLACEHOLDER, VOCABULARY)]
    processor = row.processor()
    picture = Image.fromarray(skimage.data.astronaut()).resize((row.side, row.side), Image.Resampling.BICUBIC)
    # where transformers makes tiles of a single picture, there is something to compare with two
    pictures = [picture] * (1 + row.compared[0])
    call = {"images": [pictures], "text": [" ".join([row.mark] * len(pictures) + ["what", "is", "there"])]}
    stock = processor(**call, return_tensors="pt", **dict(row.plain))
    converted, prepare = qlip.convert(copy.deepcopy(model), processor, position=row.position and "solve")
    asked = {"stock": (model, stock)}
    budget = (row.side // row.pixels) ** 2
    for name, share in SHARES.items():
        options = {"criterion": "uniform", "max_tokens": None} if share == 1 else {"max_tokens": round(budget * share)}
        asked[name] = (converted, prepare(**call, return_tensors="pt", **options))
    if not torch.equal(answer(*asked["stock"], ANSWER), answer(*asked["equal"], ANSWER)):
        raise RuntimeError("model: stock and converted do not answer alike at equal tokens")
    cells = [str(budget * len(pictures))]
    for tokens in (1, ANSWER):
        took = best({name: partial(answer, *each, tokens) for name, each in asked.items()}, repeats)
        cells += [f"{took['stock']:.0f}", *(f"{took[name] / took['stock']:.2f}x" for name in SHARES)]
    return cells


def measure_tower(batch: int, repeats: int) -> list[str]:
    """Milliseconds of CLIP's ViT-L/14 at 336 pixels, and ours as parts of them: without and with a network of the paper's size."""
    tower = CLIPVisionModel(CLIPVisionConfig(**VIT_L)).eval()
    pixels = torch.randn(batch, 3, 336, 336)
    uniform = qlip.Quadtree(criterion="uniform").batch(pixels)
    patches = qlip.PatchBatch.from_images(pixels, uniform)
    ways = {"stock": partial(tower, pixels)}
    for name, position in (("table", "bicubic"), ("network", PositionMLP(1024).requires_grad_(False))):
        ways[name] = partial(QlipVisionModel.from_clip(tower, position), patches)
    with torch.inference_mode():
        took = best(ways, repeats)
    return [
        str(576),
        str(batch),
        f"{took['stock']:.0f}",
        *(f"{took[name] / took['stock']:.3f}x" for name in list(ways)[1:]),
    ]


def main() -> None:
    """Measure every family in both sizes, and the tower, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", help="one family, as tests/families/rows.py calls it; nothing is written")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tables = []
    for size, make in (("tiny", lambda row: row.make().eval()), ("larger", lambda row: larger(row.make()))):
        rows = []
        for name, row in ROWS.items():
            if name not in ONCE and options.only in (None, name):
                rows.append([name, *measure(row, make(row), options.repeats)])
                print(size, *rows[-1], sep="\t", flush=True)
        tables.append(rows)
    if options.only:
        return
    towers = [measure_tower(batch, 2) for batch in (1, 8)]
    print(towers)
    header = ["family", "image tokens", "stock, ms", *SHARES, "stock, ms", *SHARES]
    tower_header = ["tokens", "batch", "stock, ms", "with table", "with network"]
    both = [table(header, rows) for rows in tables]
    write_section("families", TEXT.format(machine(), options.repeats, ANSWER, *both, table(tower_header, towers)))
    for i, name in enumerate(SHARES):
        ratios = sorted(float(row[3 + i][:-1]) for row in tables[1])
        summarise(
            (
                f"first token of {len(ratios)} families, {name} tokens",
                "",
                "stock",
                f"{ratios[0]:.2f} to {ratios[-1]:.2f}, median {ratios[len(ratios) // 2]:.2f}",
                "1.02x" if name == "equal" else "",
            )
        )
    for tokens, batch, stock, _, ratio in towers:
        ours = f"{float(stock) * float(ratio[:-1]):.0f} ms"
        summarise(
            (f"ViT-L/14 with network, {tokens} tokens, batch {batch}", ours, f"stock, {stock} ms", ratio, "1.02x")
        )


TEXT = """## Families

`python benchmarks/families.py` ({}; one thread, processor time, float32, batch 1, best of {} rounds in which stock and converted take
turns; preprocessing not counted)

Left, the time to the first token: encoding the picture and reading the prompt. Right, the time to the last of {} tokens. Parts of the stock model's time, with
equal tokens (uniform leaves; every row checks that both give the same answer), half and a quarter of them. Gemma 4's own
processor pads every picture to as many patches as it takes at most, and its tower computes them; ours pads nothing.

The tiny models of the contract (towers of width 64 and 2 to 4 layers), where what is measured is mostly Python:

{}

The same families with a tower of width 256 and 6 layers, and words of width 512 and 8 layers:

{}

CLIP's ViT-L/14 at 336 pixels, the tower of LLaVA-1.5-7B, with its table and with the paper's network, which computes each coordinate once:

{}

On a GPU: not measured yet.
"""


if __name__ == "__main__":
    main()
