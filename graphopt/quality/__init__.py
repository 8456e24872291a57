"""Judging: what a candidate is fed, how its outputs are compared, and the verdict."""
