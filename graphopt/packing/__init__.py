"""Lossless packing of models into archives that are read in place of them, see docs/packing.md."""

from graphopt.packing.packer import pack
from graphopt.packing.unpacker import unpack

__all__ = ["pack", "unpack"]
