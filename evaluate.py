"""Measure what QLIP buys: ``python evaluate.py vqa | bias | sweep | report``, each with ``--help``."""

from qlip.cli import main

if __name__ == "__main__":
    main(prog="evaluate.py")
