"""How long a question takes: a stock LLaVA against the same one converted, at equal tokens, half and a quarter of them.

Run as ``python benchmarks/vqa.py``: random weights in the shape of LLaVA-1.5-7B in bfloat16 where there is a GPU, a small
model on a CPU; or on any folder or Hub id, ``python benchmarks/vqa.py llava-hf/llava-1.5-7b-hf``. Speed does not hang on what the weights
have learned, only on their shape.
"""

import copy
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import skimage.data
import torch
from _report import PHOTOGRAPHS, machine, summarise, table, write_for
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from qlip.evaluation.cell import Vision
from qlip.evaluation.run.arm import Arm, load_arm

BATCHES = (1, 8, 32)
NEW_TOKENS = 8
WORDS = 32000
ROUNDS = 6
ARMS = {
    "stock": Vision(baseline="crop"),
    "equal tokens": Vision(size=336, crop="square", criterion="uniform"),
    "half the tokens": Vision(size=336, crop="square", max_tokens=288),
    "a quarter": Vision(size=336, crop="square", max_tokens=144),
}
QUESTION = "is there a red circle in the picture ?\nAnswer the question using a single word or phrase."


def random_llava(folder: Path, large: bool) -> str:
    """Save a LLaVA of random weights: LLaVA-1.5-7B's shape, or one that a CPU can run."""
    names = {"<pad>": 0, "<s>": 1, "</s>": 2, "<image>": 3, "<unk>": 4} | {f"word{i}": i for i in range(5, WORDS)}
    words = Tokenizer(WordLevel(names, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    images = CLIPImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    processor = LlavaProcessor(images, tokenizer, 14, "default", num_additional_image_tokens=1)
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    text = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
    if not large:
        vision = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 4}
        text = {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8, "num_attention_heads": 8}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**vision, image_size=336, patch_size=14, projection_dim=vision["hidden_size"]),
        text_config=LlamaConfig(**text, vocab_size=WORDS, max_position_embeddings=4096, pad_token_id=0),
        image_token_index=3,
    )
    torch.set_default_dtype(torch.bfloat16 if large else torch.float32)
    with torch.device("cuda" if large else "cpu"):
        model = LlavaForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    model.generation_config.eos_token_id = None  # random weights stop anywhere; every answer is equally long
    model.generation_config.pad_token_id = 0
    model.generation_config.suppress_tokens = [3]
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def once(arm: Arm, inputs: Any, tokens: int, device: str) -> float:
    """Seconds of an answer of so many tokens; on a CPU of processor time."""
    clock = time.perf_counter if device == "cuda" else time.process_time
    if device == "cuda":
        torch.cuda.synchronize()
    start = clock()
    with torch.inference_mode():
        arm.model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def measure(source: str, batches: tuple[int, ...], device: str) -> list[list[str]]:
    """A row an arm and batch size: image tokens, milliseconds a question to the first token and to the last, and parts of the stock model's."""
    pictures = [Image.fromarray(getattr(skimage.data, name)()).convert("RGB") for name in PHOTOGRAPHS]
    arms = {
        name: copy.deepcopy(
            load_arm(source, vision, dtype="bfloat16" if device == "cuda" else "float32")
        )  # loading hands out one model
        for name, vision in ARMS.items()
    }
    rows = []
    for batch in batches:
        took, tokens, prepared = {}, {}, {}
        for name, arm in arms.items():
            arm.model.to(device)
            text = arm.prompt(QUESTION, "llava")
            items = [arm.prepare(pictures[i % len(pictures)], text, i) for i in range(batch)]
            prepared[name] = arm.to(arm.collate(items), arm.model.device)
            tokens[name] = sum(item.tokens for item in items) / batch
        for length, turn in product((1, NEW_TOKENS), range(1 + ROUNDS)):
            for name, arm in arms.items():  # they take turns
                seconds = once(arm, prepared[name], length, device)
                if turn:
                    took[name, length] = min(took.get((name, length), seconds), seconds)
        for name in arms:
            cells = [name, f"{tokens[name]:.0f}", str(batch)]
            for length in (1, NEW_TOKENS):
                ms, stock = took[name, length], took["stock", length]
                cells += [f"{1000 * ms / batch:.1f}", f"{ms / stock:.2f}x"]
            rows.append(cells)
            print(*cells, sep="\t", flush=True)
    return rows


def main() -> None:
    """Measure on the GPU if there is one, and write the section."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        given = sys.argv[1] if len(sys.argv) > 1 else None
        source = given or random_llava(Path(folder), device == "cuda")
        what = (
            given
            or f"random weights in the shape of {'LLaVA-1.5-7B, bfloat16' if device == 'cuda' else 'a small LLaVA, float32'}"
        )
        rows = measure(source, BATCHES if device == "cuda" or given else BATCHES[:2], device)
    header = ["arm", "image tokens", "batch", "first token, ms", "ratio", "whole answer, ms", "ratio"]
    where = "one thread, processor time" if device == "cpu" else "seconds on the clock"
    title = "GPU" if device == "cuda" else "CPU"
    write_for(device, "vqa", TEXT.format(title, machine(device), what, where, NEW_TOKENS, ROUNDS, table(header, rows)))
    stock = {row[2]: row[3] for row in rows if row[0] == "stock"}
    for name, tokens, batch, first, ratio, _, _ in rows:
        if name == "equal tokens":
            what = f"first token of {tokens} image tokens, batch {batch}, {title}"
            summarise((what, f"{first} ms", f"stock, {stock[batch]} ms", ratio, "1.02x"))


TEXT = """## Questions, {}

`python benchmarks/vqa.py` ({}; {}; {})

Milliseconds a question of `generate`, to the first token and to the last of {}, best of {} rounds in which the arms take turns, after one to
warm up; pictures are prepared beforehand. Ratios are to the stock model.

{}
"""


if __name__ == "__main__":
    main()
