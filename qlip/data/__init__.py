"""Pictures to train, measure and look at: photographs, drawn scenes, any folder."""
