"""Trained positions: saving, loading, downloading, model cards."""
