"""The version of the package, kept where both setup.cfg and the checkpoints can read it."""

__version__ = "0.1.0"
