"""Reading any picture, preparing it, and how it travels to a model."""
