"""A process with an environment of its own, for huggingface_hub reads its settings on import.

Takes one Python expression a line on stdin, answers one JSON object a line on stdout.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).parent


class Client:
    """Runs expressions in a fresh interpreter that has ``environ``, ``zoo``, ``REGISTRY`` and ``Entry``."""

    def __init__(self, folder, **environment):
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(_HERE / "hub_client.py")],
            env={**kept, **quiet, "HF_HOME": str(folder / "hf"), **environment},
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, expression):
        """The value, or (type of the exception, its message)."""
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.kill()  # it has nothing to finish, and unloading torch takes seconds
        self.process.wait()


def _serve():
    from qlip.zoo import load as zoo
    from qlip.zoo.registry import REGISTRY, Entry

    names = {"environ": os.environ, "zoo": zoo, "REGISTRY": REGISTRY, "Entry": Entry}
    for line in sys.stdin:
        try:
            answer = eval(line, names)
        except Exception as error:
            answer = [type(error).__name__, str(error)]
        print(json.dumps(answer, default=str), flush=True)


if __name__ == "__main__":
    _serve()
