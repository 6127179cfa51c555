"""Vision transformers of transformers, one small file each, and what is common to them."""
