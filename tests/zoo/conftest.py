import pytest

from qlip.towers.synthetic import random_clip
from qlip.zoo.solve import solve
from qlip.zoo.store import save
from tests.zoo.helpers import describe, tiny_position


@pytest.fixture
def position():
    return tiny_position()


@pytest.fixture
def entry(position, tmp_path):
    """A saved entry called ``tiny`` in a zoo of its own."""
    return save(position, tmp_path / "zoo" / "tiny", describe(position))


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    """A small CLIP, saved as transformers does, with a 7 x 7 grid."""
    folder = tmp_path_factory.mktemp("clip") / "tiny-clip"
    random_clip(width=32, layers=1, image_size=98).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def solved(clip_folder):
    """What ``solve:<clip_folder>`` gives: a position and its config."""
    return solve(f"solve:{clip_folder}")
