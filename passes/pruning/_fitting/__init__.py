"""Layers refitted to what they gave in the original."""
