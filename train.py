"""Train the coordinate MLP: ``python train.py fit``, ``--config paper`` (the paper), ``--config quickstart`` (no network)."""

from qlip.cli import main

if __name__ == "__main__":
    main(prog="train.py")
