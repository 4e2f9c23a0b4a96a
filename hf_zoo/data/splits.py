"""Splits that a hash of the item fixes, so that neither order, nor seed, nor the other items move it."""

import hashlib

import numpy as np

SPLITS = ("train", "validation", "test")


def split_of(key: str, shares: tuple[float, float, float] = (0.90, 0.05, 0.05)) -> str:
    """The split of an item.

    Args:
        key: what identifies the item (its path, its content); items that must stay together share one.
        shares: expected shares of train, validation and test, which sum to 1.
    """
    position = _hash_of(key) / 2**64  # uniform in [0, 1)
    for split, share in zip(SPLITS, shares, strict=True):
        if position < share:
            return split
        position -= share
    return SPLITS[-1]  # the shares sum to 1 only up to rounding


def split_by_key(keys: list[str], shares: tuple[float, float, float]) -> list[str]:
    """The split of each item by its own key alone."""
    return [split_of(key, shares) for key in keys]


def generator_of(key: str) -> np.random.Generator:
    """Random numbers that belong to one item: the same on every machine, whatever was drawn before."""
    return np.random.default_rng(_hash_of(key))


def _hash_of(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
