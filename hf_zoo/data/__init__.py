"""Datasets that need no download, built from what every Python installation has."""
