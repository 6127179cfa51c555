"""Adapters to Hugging Face transformers: the vision tower, preprocessing, whole models."""
