import copy
import importlib.util
from pathlib import Path

import datasets
import pytest

from qlip.towers.load import position_table
from qlip.zoo.position_file import POSITION_FILE, write_position
from qlip.zoo.solve import solved_position
from tests.evaluation.local_data import MAKERS
from tests.families.tiny_llava import tiny_llava, tiny_processor

collect_ignore = [] if importlib.util.find_spec("ray") else ["test_ray.py"]  # too heavy for everybody's environment


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory):
    """Tables that `datasets` makes of local files go with the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """A tiny LLaVA saved as a folder, with a position beside it, as a converted model is."""
    folder = tmp_path_factory.mktemp("model")
    model = tiny_llava()
    model.save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    write_position(
        folder / POSITION_FILE,
        solved_position(position_table(model.model.vision_tower), hidden=640, depth=2, fourier=24),
    )
    return folder


@pytest.fixture(scope="session")
def data_folders(tmp_path_factory) -> dict[str, Path]:
    """A local copy of every benchmark."""
    root = tmp_path_factory.mktemp("data")
    return {name: maker(root / name) for name, maker in MAKERS.items()}


@pytest.fixture
def cell(model_folder):
    """Fields of a quick cell, others by keyword."""

    def fields(**changed):
        quick = {"benchmark": "pope", "model": str(model_folder), "size": 112, "alpha": 0.5, "max_new_tokens": 3}
        return copy.deepcopy({**quick, **changed})

    return fields
