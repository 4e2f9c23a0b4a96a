"""Datasets that need no download, built from what every Python installation has."""

from .load import load_dataset
from .text import pack, text_column

__all__ = ["load_dataset", "pack", "text_column"]
