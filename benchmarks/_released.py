"""Times the paper's released code (github.com/KyroChi/qlip); started by patchify.py in a process of its own.

That package is called qlip too, so the two cannot be imported together. Run as
``python benchmarks/_released.py CLONE CASES``, CASES being a file of torch.save with a list of (image, alpha).
Prints a JSON list of (leaves, milliseconds), one a case.
"""

import json
import sys
import time
import types
from pathlib import Path

import torch


def main(clone: str, cases: str) -> None:
    package = types.ModuleType("qlip")  # what `import qlip` would find if ours were not installed
    package.__path__ = [str(Path(clone) / "qlip")]
    sys.modules["qlip"] = package
    from qlip.multi_quadtree import MultiTensorQuadtree

    torch.set_num_threads(1)
    results = []
    for image, alpha in torch.load(cases):
        best, leaves = float("inf"), 0
        for _ in range(6):
            start = time.process_time()
            tree = MultiTensorQuadtree(image[None], 14, alpha, selection_mode="deriv")
            leaves = tree.as_sequence().shape[1]
            best = min(best, time.process_time() - start)
        results.append((leaves, 1000 * best))
    print(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
