"""Asking and measuring: one run, one folder."""
