"""What the start and the projection do to R, the off-grid error and L_cls: three short runs, docs/images/training.png.

python benchmarks/training_curves.py      about ten minutes on two cores
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parents[1]
PANELS = {"train/residual_l1": "residual R", "train/offgrid": "off-grid error", "train/l_cls": "L_cls"}
ARMS = {
    "random": {"model": {"mlp": {"init": "random"}}, "project": False},
    "solved": {"model": {"mlp": {"init": "solved"}}, "project": False},
    "solved and projected every 10 steps": {"model": {"mlp": {"init": "solved"}}, "project": True},
}


def fit(folder: Path, arm: dict) -> dict[str, tuple[list[int], list[float]]]:
    """Run training_curves.yaml with one arm's changes; the logged curves by tag."""
    config = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
    config["model"] |= arm["model"]
    if not arm["project"]:
        del config["trainer"]["callbacks"]
    config["trainer"]["log_every_n_steps"] = 3
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    subprocess.run([sys.executable, ROOT / "train.py", "fit", "--config=config.yaml"], cwd=folder, check=True)
    events = EventAccumulator(str(folder / "lightning_logs/version_0")).Reload()
    scalars = {tag: events.Scalars(tag) for tag in PANELS}
    return {tag: ([e.step for e in x], [e.value for e in x]) for tag, x in scalars.items()}


def draw(curves: dict[str, dict[str, tuple[list[int], list[float]]]], path: Path) -> None:
    """One panel a quantity, one line an arm."""
    figure, axes = plt.subplots(1, len(PANELS), figsize=(12, 3.6), layout="constrained")
    for axis, (tag, label) in zip(axes, PANELS.items(), strict=True):
        for name, arm in curves.items():
            axis.plot(*arm[tag], label=name)
        axis.set(yscale="log", xlabel="step", title=label)
        axis.grid(alpha=0.3)
    axes[0].axhline(5e-7, color="grey", linestyle=":", label="the paper's target for R")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Fit the three arms and draw them; print the first and last values."""
    with tempfile.TemporaryDirectory() as folder:
        curves = {name: fit(Path(folder, str(i)), arm) for i, (name, arm) in enumerate(ARMS.items())}
    draw(curves, ROOT / "docs/images/training.png")
    print("| start | R, first and last | off-grid error | L_cls |\n|---|---|---|---|")
    for name, arm in curves.items():
        cells = [f"{values[0]:.2g} to {values[-1]:.2g}" for _, values in (arm[tag] for tag in PANELS)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
