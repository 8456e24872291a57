"""Data: files, folders and functions, read as a stream of samples."""

from graphopt.quality.data.dataset import Batch, Dataset, Part
from graphopt.quality.data.feeds import first_feeds, timed_feeds
from graphopt.quality.data.image_options import ImageOptions
from graphopt.quality.data.opening import open_dataset
from graphopt.quality.data.options import DataOptions, DataSource, parse_share
from graphopt.quality.data.split import CALIBRATION_MOST
from graphopt.quality.data.swapped import Swapped, alike

__all__ = [
    "CALIBRATION_MOST",
    "Batch",
    "DataOptions",
    "DataSource",
    "Dataset",
    "ImageOptions",
    "Part",
    "Swapped",
    "alike",
    "first_feeds",
    "open_dataset",
    "parse_share",
    "timed_feeds",
]
