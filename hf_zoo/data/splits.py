"""Splits that a hash of the item fixes, so that neither order, nor seed, nor the other items move it."""

import hashlib

SPLITS = ("train", "validation", "test")


def split_of(key: str, shares: tuple[float, float, float] = (0.90, 0.05, 0.05)) -> str:
    """The split of an item.

    Args:
        key: what identifies the item (its path, its content); items that must stay together share one.
        shares: expected shares of train, validation and test, which sum to 1.
    """
    position = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64  # uniform in [0, 1)
    for split, share in zip(SPLITS, shares, strict=True):
        if position < share:
            return split
        position -= share
    return SPLITS[-1]  # the shares sum to 1 only up to rounding
