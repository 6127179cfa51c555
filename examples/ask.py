"""Ask a LLaVA a question about an image of any size.

    python examples/ask.py photograph.jpg "What is written on the sign?" --size 672 --alpha 0.3

Prints the answer, the tokens that the image took out of those of its full grid, and the seconds to encode and to answer.
"""

import argparse
import time
from pathlib import Path

import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration

import qlip


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("question")
    parser.add_argument(
        "--model",
        default="llava-hf/llava-1.5-7b-hf",
        help="Hub id or folder of a LLaVA with a CLIP tower, or pocket-llava",
    )
    parser.add_argument("--position", default="solve", help="solve, bicubic, bilinear, or anything qlip.load takes")
    parser.add_argument("--size", type=int, default=672, help="shortest edge in pixels; 0 for the native size")
    parser.add_argument(
        "--max-tokens", type=int, default=576, help="token budget; 576 is what the stock LLaVA-1.5 spends"
    )
    parser.add_argument("--alpha", type=float, help="split threshold, in place of the budget: more is fewer tokens")
    parser.add_argument("--max-new-tokens", type=int, default=100, help="length of the answer")
    parser.add_argument("--save-overlay", type=Path, help="save the image with its leaves drawn over it")
    return parser.parse_args()


def seconds(start: float) -> float:
    """Time since ``start``, once an accelerator has caught up."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Load, convert, ask, print."""
    args = arguments()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.model == "pocket-llava":
        model, processor = qlip.from_pretrained(args.model)
    else:
        model = LlavaForConditionalGeneration.from_pretrained(args.model, dtype="auto")
        model, processor = qlip.convert(model, AutoProcessor.from_pretrained(args.model), position=args.position)
    model.to(device)
    prompt = f"USER: <image>\n{args.question} ASSISTANT:"
    options = {"size": args.size or None}
    options |= {"max_tokens": args.max_tokens} if args.alpha is None else {"alpha": args.alpha}
    inputs = processor(images=str(args.image), text=prompt, return_tensors="pt", **options).to(model.device)
    patches, geometry = inputs["pixel_values"][0]
    leaves = qlip.Leaves.from_geometry(geometry.cpu())

    with torch.inference_mode():
        model.get_image_features(inputs["pixel_values"])  # the first call of anything is slower
        start = time.perf_counter()
        model.get_image_features(inputs["pixel_values"])
    encoding = seconds(start)
    start = time.perf_counter()
    output = model.generate(**inputs, max_new_tokens=args.max_new_tokens, do_sample=False)
    answering = seconds(start)

    words = output[0, inputs["input_ids"].shape[1] :]
    print(processor.decode(words, skip_special_tokens=True).strip())
    h, w = leaves.grid
    print(f"{len(patches)} of {h * w} tokens ({h} x {w} patches)")
    print(f"{encoding:.2f} s to encode the image, {answering:.2f} s to answer, encoding included")
    if args.save_overlay is not None:
        view = processor.image_processor.settings.with_options(**options).view(args.image)
        qlip.draw_leaves(view, leaves).save(args.save_overlay)
        print(f"leaves drawn in {args.save_overlay}")


if __name__ == "__main__":
    main()
