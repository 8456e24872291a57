"""Exact passes: the result computes what the original computes, with fewer nodes and bytes."""
