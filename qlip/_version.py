"""The version of the package, kept where both setup.cfg and the checkpoints can read it, and what the package runs on."""

__version__ = "0.1.0"

SUPPORTED = {"python": "3.11", "torch": "2.11", "torchvision": "0.26", "transformers": "5.23"}
"""The oldest versions that the package supports; `make test-oldest` installs them, setup.cfg and the README state them."""
