"""The bias measures: against finite differences, against CLIP itself, and from a folder to files."""

import csv
import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from qlip import Quadtree
from qlip.cli import main
from qlip.core.bias import position_gradient_norms
from qlip.core.patches import PatchBatch
from qlip.data import sources
from qlip.encoder import QlipVisionModel
from qlip.evaluation.bias_points import read_points
from qlip.evaluation.config import BiasConfig
from qlip.evaluation.run.bias import is_measured, run_bias
from qlip.evaluation.run.metrics import GridResidual, InterpolationBias, MesoscopicBias
from qlip.images.processor import QlipImageProcessor
from qlip.towers.base import position_table
from qlip.towers.synthetic import random_clip
from qlip.zoo.solve import solved_position
from tests.evaluation.fake_answers import make_run
from tests.families.tiny_llava import scene

UNIFORM = Quadtree(criterion="uniform")


@pytest.fixture(scope="session")
def clip():
    return random_clip(64, 3).requires_grad_(False)


@pytest.fixture(scope="session")
def batch():
    """Two images of different length, so one is padded."""
    views = [QlipImageProcessor(size, "square", UNIFORM)(scene(200, 160, size)) for size in (84, 70)]
    return PatchBatch.collate(views)


def test_the_gradient_of_eq_1_is_that_of_finite_differences(clip, batch):
    clip = random_clip(64, 3).double().requires_grad_(False)
    model = QlipVisionModel.from_clip(clip, "bicubic")
    double = PatchBatch(batch.patches.double(), batch.coords, batch.mask)
    target = torch.randn(2, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    positions = model.position(batch.coords).double()

    def cosine(p):
        return F.cosine_similarity(model(double, positions=p).pooler_output, target)

    direction = torch.randn(positions.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    direction /= direction.flatten(1).norm(dim=1)[:, None, None]
    positions.requires_grad_()
    norms = position_gradient_norms(model(double, positions=positions).pooler_output, target, positions)
    (gradient,) = torch.autograd.grad(cosine(positions).sum(), positions)
    with torch.no_grad():
        step = 1e-5
        along = (cosine(positions + step * direction) - cosine(positions - step * direction)) / (2 * step)
        assert torch.allclose(along, (gradient * direction).flatten(1).sum(1), rtol=1e-4)
        steepest = gradient / gradient.flatten(1).norm(dim=1)[:, None, None]
        climb = (cosine(positions + step * steepest) - cosine(positions - step * steepest)) / (2 * step)
    assert torch.allclose(norms, climb.float(), rtol=1e-4)
    assert gradient[1, 25:].abs().max() == 0  # padding
    assert norms.shape == (2,)


def test_metrics_are_means_over_images_however_they_are_batched(clip, batch):
    model = QlipVisionModel.from_clip(clip, "bicubic")
    target = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))

    def updated(slices):
        bias, cosine = InterpolationBias(), MesoscopicBias()
        for some in slices:
            one = PatchBatch(batch.patches[some], batch.coords[some], batch.mask[some])
            positions = model.position(one.coords).requires_grad_()
            cls = model(one, positions=positions).pooler_output
            bias.update(cls, target[some], positions)
            cosine.update(cls, target[some])
        return bias.compute(), cosine.compute()

    together, apart = updated([slice(0, 2)]), updated([slice(0, 1), slice(1, 2)])
    assert torch.allclose(torch.stack(together), torch.stack(apart), rtol=1e-4)
    assert together[0] > 0


def test_metrics_of_two_devices_add_up():
    target, cls = torch.tensor([[1.0, 0.0]] * 3), torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    one, two = MesoscopicBias(), MesoscopicBias()
    one.update(cls[:1], target[:1])
    two.update(cls[1:], target[1:])
    one.merge_state(two)
    assert one.compute() == 0


def test_the_residual_is_the_positions_own(clip):
    table = position_table(clip)
    position = solved_position(table, hidden=640, depth=2, fourier=24)
    metric = GridResidual()
    metric.update(position, table)
    got = metric.compute()
    assert got["R"] == pytest.approx(position.residual(table)[0].item())
    assert got["offgrid"] == pytest.approx(position.offgrid(table))
    assert 0 < got["R"] < 5e-7


@pytest.fixture(scope="session")
def measured(tmp_path_factory):
    root = tmp_path_factory.mktemp("bias")
    (root / "photos" / "more").mkdir(parents=True)
    scene(400, 350, 0).save(root / "photos" / "a.png")
    scene(360, 420, 1).save(root / "photos" / "more" / "b.JPG", "JPEG")
    (root / "photos" / "notes.txt").write_text("no image")
    options = ["--clip=random:64x3", "--sizes=[224,448,112]", "--alpha=1.0", f"--out={root / 'out'}", "--device=cpu"]
    main(["bias", str(root / "photos"), *options, "--weighting=[once,area]"])
    return root / "out"


def test_points_are_all_there(measured):
    found = json.loads((measured / "bias.json").read_text())
    everything = {(row["size"], row["position"], row["quadtree"], row["weighting"]): row for row in found["rows"]}
    rows = {key: row for (*key, way), row in everything.items() if way == "once" for key in [tuple(key)]}
    assert found["images"] == 2
    assert (len(rows), len(everything)) == (3 * 4 * 2, 3 * 4 * 3)
    for (*key, way), row in everything.items():
        other = rows[tuple(key)]
        assert row["tokens"] == other["tokens"]
        assert (row["cosine"] == other["cosine"]) == (way == "once")
        assert sum(row["cosines"]) / 2 == pytest.approx(row["cosine"])
        bias = row["interpolation_bias"]
        assert (
            row["interpolation_biases"] == []
            if bias is None
            else sum(row["interpolation_biases"]) / 2 == pytest.approx(bias)
        )
    assert rows[336, "mlp", False]["tokens"] == 576
    assert rows[336, "mlp", True]["tokens"] < 576
    # at its own size, uncut, CLIP is compared with itself
    assert all(rows[336, name, False]["cosine"] == pytest.approx(1, abs=1e-4) for name in ("mlp", "bicubic", "zero"))
    assert rows[336, "bicubic", False]["interpolation_bias"] < 1e-2 < rows[224, "bicubic", False]["interpolation_bias"]
    assert all(rows[448, name, False]["cosine"] < 0.9999 for name in ("mlp", "bicubic", "bilinear", "zero"))
    assert rows[448, "zero", False]["interpolation_bias"] is None
    assert found["residual"]["R"] < 5e-7


def test_csv_picture_and_events_say_the_same(measured):
    rows = json.loads((measured / "bias.json").read_text())["rows"]
    with (measured / "bias.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(line["cosine"]) for line in table] == [row["cosine"] for row in rows]
    assert Image.open(measured / "bias.png").width > 1000
    events = EventAccumulator(str(measured)).Reload()
    scalars = events.Scalars("bias/cos_cls/mlp-quadtree")
    wanted = [
        row["cosine"] for row in rows if row["position"] == "mlp" and row["quadtree"] and row["weighting"] == "once"
    ]
    assert [event.value for event in scalars] == pytest.approx(wanted)
    assert [event.step for event in scalars] == [224, 336, 448]
    assert len(events.Scalars("bias/cos_cls/mlp-quadtree-area")) == 3


def test_a_measurement_from_before_weighting_could_be_chosen_is_one_of_once(measured, tmp_path):
    found = json.loads((measured / "bias.json").read_text())
    config = {name: value for name, value in found["config"].items() if name != "weighting"}
    rows = [{name: value for name, value in row.items() if name != "weighting"} for row in found["rows"][:8]]
    (tmp_path / "bias.json").write_text(json.dumps({**found, "config": config, "rows": rows}))
    assert {point.weighting for point in read_points(tmp_path / "bias.json")} == {"once"}
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
    assert is_measured(BiasConfig(**{**options, "out": tmp_path}))
    assert not is_measured(BiasConfig(**{**options, "out": tmp_path, "weighting": ("once", "area")}))


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(SystemExit, match=r"qlip: images: got .*, which holds none; takes a folder with"):
        main(["bias", str(tmp_path), "--clip=random:64x1"])


def test_pocket_names_the_drawn_scenes(tmp_path, monkeypatch):
    (tmp_path / "scenes" / "val").mkdir(parents=True)
    (tmp_path / "scenes" / "train").mkdir()
    for name in ("val/a.png", "train/b.png"):
        scene(240, 240, 0).save(tmp_path / "scenes" / name)
    monkeypatch.setattr(sources, "scene_folder", lambda: tmp_path / "scenes")
    options = ["--clip=random:64x1", "--sizes=[224,224,112]", "--positions=[zero]", "--device=cpu"]
    main(["bias", "pocket", *options, f"--out={tmp_path / 'out'}"])
    assert json.loads((tmp_path / "out" / "bias.json").read_text())["images"] == 1


def test_the_device_is_found_when_the_command_runs(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    scene(240, 240, 0).save(tmp_path / "photos" / "a.png")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    quick = ["--clip=random:64x1", "--sizes=[224,224,112]", "--positions=[zero]", f"--out={tmp_path / 'out'}"]
    main(["bias", str(tmp_path / "photos"), *quick])
    assert json.loads((tmp_path / "out" / "bias.json").read_text())["config"]["device"] == "cpu"


def test_the_report_draws_figure_4(measured, tmp_path):
    make_run(tmp_path, 0.5, 100)
    shutil.copytree(measured, tmp_path / "bias")
    main(["report", str(tmp_path), f"--paper={tmp_path / 'nowhere'}"])
    assert "Biases of the encoder (figure 4)" in (tmp_path / "report" / "index.html").read_text()
    assert (tmp_path / "report" / "figures" / "bias0.png").stat().st_size > 10_000
    assert "The paper" not in (tmp_path / "report" / "report.md").read_text()


def test_a_picture_that_cannot_be_read_is_left_out_and_counted(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("qlip.data.readable.MAX_UNREADABLE", 0.5)
    (tmp_path / "in").mkdir()
    scene(64, 64, 0).save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_text("no picture")
    config = BiasConfig(
        str(tmp_path / "in"),
        "random:64x1",
        sizes=(56, 56, 28),
        positions=("bicubic",),
        out=tmp_path / "out",
        device="cpu",
    )
    run_bias(config)
    assert "b.png cannot be read" in caplog.text
    assert json.loads((tmp_path / "out" / "bias.json").read_text())["images"] == 1
    monkeypatch.undo()
    with pytest.raises(OSError, match="images: 1 of 2 images cannot be read"):
        run_bias(config)
