"""Passes that take channels, neurons and heads out of a model."""
