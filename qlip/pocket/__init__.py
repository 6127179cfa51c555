"""A small world of drawn scenes, and the recipe of the models that come with the package: docs/pocket.md."""
