"""Questions a second: a stock LLaVA against the same one converted, at equal tokens and at half the tokens.

Run as ``python benchmarks/vqa.py``: random weights in the shape of LLaVA-1.5-7B in bfloat16 where there is a GPU, a small
model on a CPU; or on any folder or Hub id, ``python benchmarks/vqa.py llava-hf/llava-1.5-7b-hf``. Speed does not hang on what the weights
have learned, only on their shape.
"""

import sys
import tempfile
import time
from pathlib import Path

import skimage.data
import torch
from _report import PHOTOGRAPHS, machine, table, write_section
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
ROUNDS = 3
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


def questions_per_second(arm: Arm, pictures: list[Image.Image], batch: int) -> tuple[float, float]:
    """Best of a few rounds, preprocessing not counted, and mean image tokens."""
    text = arm.prompt(QUESTION, "llava")
    items = [arm.prepare(pictures[i % len(pictures)], text, i) for i in range(batch)]
    inputs = arm.to(arm.collate(items), arm.model.device)
    best = float("inf")
    for _ in range(1 + ROUNDS):
        _wait()
        start = time.perf_counter()
        with torch.no_grad():
            arm.model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        _wait()
        best = min(best, time.perf_counter() - start)
    return batch / best, sum(item.tokens for item in items) / batch


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure(source: str, batches: tuple[int, ...]) -> list[list[str]]:
    """A row an arm: tokens and questions a second for every batch size."""
    gpu = torch.cuda.is_available()
    pictures = [Image.fromarray(getattr(skimage.data, name)()).convert("RGB") for name in PHOTOGRAPHS]
    arms = {
        "stock": Vision(baseline="crop"),
        "converted, equal tokens": Vision(size=336, crop="square", criterion="uniform"),
        "converted, half the tokens": Vision(size=336, crop="square", max_tokens=288),
    }
    rows, stock = [], {}
    for name, vision in arms.items():
        arm = load_arm(source, vision, dtype="bfloat16" if gpu else "float32")
        arm.model.to("cuda" if gpu else "cpu")
        speeds, tokens = [], 0.0
        for batch in batches:
            speed, tokens = questions_per_second(arm, pictures, batch)
            stock.setdefault(batch, speed)
            speeds.append(f"{speed:.2f} ({speed / stock[batch]:.2f}x)")
        rows.append([name, f"{tokens:.0f}", *speeds])
        print(*rows[-1], sep="\t", flush=True)
    return rows


def main() -> None:
    gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        given = sys.argv[1] if len(sys.argv) > 1 else None
        source = given or random_llava(Path(folder), gpu)
        what = (
            given or f"random weights in the shape of {'LLaVA-1.5-7B, bfloat16' if gpu else 'a small LLaVA, float32'}"
        )
        batches = BATCHES if gpu or given else BATCHES[:2]
        rows = measure(source, batches)
    header = ["arm", "image tokens", *(f"batch {batch}" for batch in batches)]
    write_section("vqa", TEXT.format(machine(), what, NEW_TOKENS, ROUNDS, table(header, rows)))


TEXT = """## Questions a second

`python benchmarks/vqa.py` ({}; {})

Questions a second of `generate`, {} new tokens each, best of {} rounds after one to warm up; pictures are prepared
beforehand. In brackets, relative to the stock model.

{}
"""


if __name__ == "__main__":
    main()
