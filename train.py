"""Train the coordinate MLP: ``python train.py fit`` (the paper), ``--config configs/quickstart.yaml`` (no network)."""

from qlip.training.cli import main

if __name__ == "__main__":
    main()
