"""Cells of a sweep as tasks of a Ray cluster (extra ``ray``): each with its GPUs, tried again where a node dies."""

from collections.abc import Sequence

import ray

from qlip.evaluation.cell import Cell, Run
from qlip.evaluation.run.sweep import is_done, run_here

RETRIES = 3


def run_on_ray(cells: Sequence[tuple[Cell, Run]], address: str, gpus: float = 1.0) -> dict[str, str]:
    """Measure cells wherever there is room; what failed and why, by folder.

    A task whose worker or node dies is started anew and goes on from its ``predictions.jsonl``: all nodes must see the folder
    of the results. A cell that fails by itself is not tried again.

    Args:
        cells: Cells without a result.
        address: Address of a running cluster, ``auto`` for the one of this machine, ``local`` to start one.
        gpus: Number of GPUs that a task takes; 0 runs on CPUs.
    """
    ray.init(address=None if address == "local" else address, ignore_reinit_error=True, log_to_driver=True)
    remote = ray.remote(max_retries=RETRIES, num_gpus=gpus, num_cpus=1)(_one)
    tasks = {remote.remote(cell, run): cell for cell, run in cells}
    failed: dict[str, str] = {}
    waiting = list(tasks)
    while waiting:
        (ready,), waiting = ray.wait(waiting, num_returns=1)
        try:
            failed |= ray.get(ready)
        except ray.exceptions.RayError as error:  # the task died more often than it may
            failed[tasks[ready].folder] = f"{type(error).__name__}: {error}"
    return failed


def _one(cell: Cell, run: Run) -> dict[str, str]:
    """One cell, in a worker; nothing to do if it was finished before its worker died."""
    return {} if is_done(cell, run) else run_here([(cell, run)])
