"""How the pocket models are trained on drawn scenes, see docs/pocket.md: ``python -m recipes.pocket --help``."""
