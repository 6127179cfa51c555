"""The benchmarks of the paper, one file each; two of them in miniature, drawn and over photographs; and the user's own.

To add one, write a subclass of `Benchmark` and name it here.
"""

from qlip.core.rules import shown, suggestion
from qlip.evaluation.benchmarks.base import Benchmark
from qlip.evaluation.benchmarks.cvbench import CVBench
from qlip.evaluation.benchmarks.local import Local
from qlip.evaluation.benchmarks.mmbench import MMBench
from qlip.evaluation.benchmarks.mme import MME
from qlip.evaluation.benchmarks.pocket import PopePhoto, PopePocket, VStarPhoto, VStarPocket
from qlip.evaluation.benchmarks.pope import Pope
from qlip.evaluation.benchmarks.realworldqa import RealWorldQA
from qlip.evaluation.benchmarks.scienceqa import ScienceQA
from qlip.evaluation.benchmarks.vstar import VStar

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        VStar(),
        MMBench(),
        Pope(),
        CVBench(),
        ScienceQA(),
        MME(),
        RealWorldQA(),
        VStarPocket(),
        PopePocket(),
        VStarPhoto(),
        PopePhoto(),
        Local(),
    )
}


def get_benchmark(name: str) -> Benchmark:
    """Look a benchmark up.

    Raises:
        ValueError: for an unknown name.
    """
    if not isinstance(name, str) or name not in BENCHMARKS:
        raise ValueError(
            f"benchmark: got {shown(name)}; known are {', '.join(BENCHMARKS)}{suggestion(name, BENCHMARKS)}"
        )
    return BENCHMARKS[name]
