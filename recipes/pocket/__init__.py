"""Two small models on drawn scenes: docs/pocket.md."""
