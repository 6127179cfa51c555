"""Models small enough to come with the package: trained on drawn scenes by `python -m recipes.pocket train` (docs/pocket.md)."""

from pathlib import Path

from qlip.files import sha256

FOLDER = Path(__file__).parent
SHA256 = {  # of model.safetensors
    "pocket-clip": "8edf6482deb4e72e0da77f003aea6cdcd6af0bb3f46105721448193f96eadab6",
    "pocket-llava": "5f359455c2839b27b8739e5d4c863ec85ce6e7359c727b2edb4903998dd16589",
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
