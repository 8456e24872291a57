"""Lossless packing of models into archives that are read in place of them, see docs/packing.md."""

from graphopt.packing.pack import pack
from graphopt.packing.unpack import unpack

__all__ = ["pack", "unpack"]
