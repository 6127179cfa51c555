"""What qlip 0.1.0 wrote still loads and computes the same; how the files came to be is in written_by_0_1/README.md."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import qlip
from qlip.cli import main
from qlip.families.llava import QlipLlavaForConditionalGeneration, QlipLlavaProcessor
from qlip.images.read import to_pixels, to_rgb
from qlip.images.resize import pad_to_square
from qlip.training.module import QlipModule
from qlip.zoo.position_file import read_position

OLD = Path(__file__).parent / "written_by_0_1"
EXPECTED = load_file(OLD / "expected.safetensors")
POSITIONS = {
    "tiny": lambda: qlip.load(OLD / "tiny"),
    "last": lambda: QlipModule.load_from_checkpoint(OLD / "last.ckpt", weights_only=True).position,
    "llava": lambda: QlipLlavaForConditionalGeneration.from_pretrained(OLD / "llava").position,
    "bilinear": lambda: read_position(OLD / "bilinear.safetensors"),
}


@pytest.mark.filterwarnings("ignore:Found keys")  # Lightning: the frozen CLIP is not in the checkpoint
@pytest.mark.parametrize("name", POSITIONS)
def test_a_position_gives_the_same_encodings(name: str) -> None:
    encodings = POSITIONS[name]()(EXPECTED["coords"])
    torch.testing.assert_close(encodings, EXPECTED[name], rtol=0, atol=1e-6)


def test_a_converted_llava_answers_the_same() -> None:
    model = QlipLlavaForConditionalGeneration.from_pretrained(OLD / "llava").eval()
    processor = QlipLlavaProcessor.from_pretrained(OLD / "llava")
    settings, prompt = processor.image_processor.settings, "USER: <image>\nwhat is there ? ASSISTANT:"
    square = to_rgb(pad_to_square(to_pixels(OLD / "pictures/a.png"), settings.mean))
    scaled = square.resize((settings.size, settings.size), Image.Resampling.BICUBIC)  # by PIL, as 0.1.0 did
    inputs = processor(images=scaled, text=prompt, return_tensors="pt", size=None)
    assert inputs["input_ids"].tolist() == EXPECTED["input_ids"].tolist()
    torch.testing.assert_close(model(**inputs).logits, EXPECTED["logits"], rtol=0, atol=1e-4)


def test_a_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py"])  # Lightning warns of arguments from two sides
    main(
        [
            "fit", "--model.backbone=random:64x1", "--data.root=old/pictures", "--data.batch_size=1", "--data.workers=0",
            "--data.cache_dir=cache", "--data.max_size=56", "--data.val_sizes=[42,56]", "--trainer.max_epochs=2",
            "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--export.name=again",
            "--projection.every_n_steps=0", "--ckpt_path=old/last.ckpt",
        ]
    )  # fmt: skip
    last = torch.load("lightning_logs/version_0/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 4
    assert qlip.load("again-last").hidden[0].out_features == 8  # the checkpoint's architecture, not the default
