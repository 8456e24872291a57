"""Passes that let weights share values."""
