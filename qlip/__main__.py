"""``python -m qlip``, the same as the console script ``qlip``."""

from qlip.cli import main

if __name__ == "__main__":
    main()
