import subprocess
import sys


def test_configurations_load_without_torch() -> None:
    code = "import sys, qlip.training.config; sys.exit('torch' in sys.modules or 'lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
