"""Recipes that train the models in `qlip/shipped`. They run from a clone of the repository and are no part of the package."""
