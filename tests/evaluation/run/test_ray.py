"""A sweep on a local Ray with two workers, one of which is killed. Collected only where Ray is installed."""

import json
import signal
import threading
import time

import psutil
import ray
import yaml

from qlip.evaluation.config import SweepConfig
from qlip.evaluation.run.ray_sweep import run_on_ray
from qlip.evaluation.run.sweep import run_sweep


def test_a_killed_worker_s_cell_goes_on_elsewhere(cell, data_folders, tmp_path):
    file = tmp_path / "sweep.yaml"
    run = {"batch_size": 1, "accelerator": "cpu", "devices": 1, "workers": 0}
    grid = [{"baseline": "crop"}, {"alpha": [0.5, 1.0, 2.0]}]
    file.write_text(yaml.safe_dump({"common": cell(benchmark="mme", max_new_tokens=24), "grid": grid, "run": run}))
    config = SweepConfig(file, data=data_folders["mme"].parent, out=tmp_path / "out")
    ray.init(num_cpus=2, include_dashboard=False)
    killed = []

    def kill_one():
        while not killed:
            busy = [
                path for path in config.out.rglob("predictions.jsonl") if not (path.parent / "result.json").exists()
            ]
            children = psutil.Process().children(recursive=True) if busy else []
            workers = [child for child in children if child.cmdline()[:1] == ["ray::_one"]]
            if workers:
                killed.append((busy[0], busy[0].read_bytes()))
                workers[0].send_signal(signal.SIGKILL)
            time.sleep(0.05)

    thread = threading.Thread(target=kill_one, daemon=True)
    thread.start()
    done = run_sweep(config, lambda cells: run_on_ray(cells, "local", gpus=0))
    ray.shutdown()
    assert killed
    assert done.open == []
    for path in config.out.rglob("predictions.jsonl"):
        ids = [json.loads(line)["id"] for line in path.read_text().splitlines()]
        assert len(ids) == len(set(ids)) == 12
    path, before = killed[0]
    assert path.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
