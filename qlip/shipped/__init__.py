"""Models small enough to come with the package: trained on drawn scenes by `python -m recipes.pocket train` (docs/pocket.md)."""

from pathlib import Path

from qlip.files import sha256

FOLDER = Path(__file__).parent
SHA256 = {  # of model.safetensors
    "pocket-clip": "c75da8a42cf3d51dd49c23dab86c9020aa257cf890a6b67cd7a3d77bef582c47",
    "pocket-llava": "2631690776261632affb2d29b0c99c8dd0b021f5429093ebb505b1470f758f0c",
    "pocket-qwen": "02c1f99ef6e86d9d2c91331bf516679c9e64ad93d7496bbd76faf13d44f09ca5",
}


def is_shipped(name: str) -> bool:
    """Whether a model of this name comes with the package."""
    return name in SHA256


def shipped(name: str) -> str:
    """The folder of a model that comes with the package, or ``name`` itself if there is none of that name.

    Raises:
        ValueError: if its weights are not those that were published.
    """
    if not is_shipped(name):
        return name
    weights = FOLDER / name / "model.safetensors"
    got = sha256(weights) if weights.is_file() else "no such file"
    if got != SHA256[name]:
        raise ValueError(
            f"{name}: {weights} has sha256 {got}, published is {SHA256[name]}; install qlip again, or train the model "
            f"anew with `python -m recipes.pocket train` and pass its folder"
        )
    return str(weights.parent)
