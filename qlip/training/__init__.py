"""Training the coordinate MLP with Lightning."""
