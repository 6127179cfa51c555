"""``python -m qlip.pocket``: train the pocket models, check them, draw scenes."""

from qlip.pocket.cli import main

main()
