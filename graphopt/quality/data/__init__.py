"""Data: files, folders and functions, read as a stream of samples."""

from graphopt.quality.data.dataset import Batch, Dataset, Part
from graphopt.quality.feeds_file import load_feeds

__all__ = ["Batch", "Dataset", "Part", "load_feeds"]
