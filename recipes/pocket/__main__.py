"""``python -m recipes.pocket``: train the pocket models, check them, draw scenes."""

from recipes.pocket.cli import main

main()
