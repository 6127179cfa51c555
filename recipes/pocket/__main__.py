"""Entry point of ``python -m recipes.pocket``."""

from recipes.pocket.cli import main

main()
