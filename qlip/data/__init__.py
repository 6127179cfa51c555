"""Pictures to train, measure and look at: sources with a name, any folder, and drawn scenes with questions about them."""
