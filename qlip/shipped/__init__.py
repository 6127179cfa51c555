"""Models small enough to come with the package: trained on drawn scenes by `python -m recipes.pocket train` (docs/pocket.md)."""

from pathlib import Path

from qlip.files import sha256

FOLDER = Path(__file__).parent
SHA256 = {  # of model.safetensors
    "pocket-clip": "d0bfd02e319c5d9c2106b8e75ead35aa41cc173caf4ff62acc4aff892c5892cb",
    "pocket-llava": "e1a5d27e7e8acdf382980bcd52eb068a630daca852d29f20c0e68e619d21331c",
}


def shipped(name: str) -> str:
    """The folder of a model that comes with the package, or ``name`` itself if there is none of that name.

    Raises:
        ValueError: if its weights are not those that were published.
    """
    if name not in SHA256:
        return name
    weights = FOLDER / name / "model.safetensors"
    got = sha256(weights) if weights.is_file() else "no such file"
    if got != SHA256[name]:
        raise ValueError(
            f"{name}: {weights} has sha256 {got}, published is {SHA256[name]}; install qlip again, or train the model "
            f"anew with `python -m recipes.pocket train` and pass its folder"
        )
    return str(weights.parent)
