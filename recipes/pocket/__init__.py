"""How pocket-clip and pocket-llava are trained on drawn scenes, see docs/pocket.md: ``python -m recipes.pocket --help``."""
