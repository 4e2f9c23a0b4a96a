"""Statistics of lists of numbers."""

import math
import statistics
from collections import Counter
from typing import Literal

from .tidy import tidy


def mean(numbers: list[float]) -> float:
    """The arithmetic mean, or average, of numbers.

    Args:
        numbers: The numbers.
    """
    return tidy(statistics.fmean(numbers))


def median(numbers: list[float]) -> float:
    """The number in the middle of numbers once they are sorted.

    Args:
        numbers: The numbers.
    """
    return statistics.median(numbers)


def most_frequent(numbers: list[float]) -> float:
    """The number that occurs most often (the mode); the first if several do.

    Args:
        numbers: The numbers.
    """
    return Counter(numbers).most_common(1)[0][0]


def standard_deviation(numbers: list[float]) -> float:
    """The standard deviation of a sample.

    Args:
        numbers: At least two numbers.
    """
    return tidy(statistics.stdev(numbers))


def variance(numbers: list[float]) -> float:
    """The variance of a sample.

    Args:
        numbers: At least two numbers.
    """
    return tidy(statistics.variance(numbers))


def sum_of(numbers: list[float]) -> float:
    """The sum of a list of numbers.

    Args:
        numbers: The numbers.
    """
    return tidy(math.fsum(numbers))


def largest_of(numbers: list[float]) -> float:
    """The largest of a list of numbers.

    Args:
        numbers: The numbers.
    """
    return max(numbers)


def smallest_of(numbers: list[float]) -> float:
    """The smallest of a list of numbers.

    Args:
        numbers: The numbers.
    """
    return min(numbers)


def sort_numbers(numbers: list[float], order: Literal["ascending", "descending"] = "ascending") -> list[float]:
    """Sort a list of numbers.

    Args:
        numbers: The numbers.
        order: From small to large, or from large to small.
    """
    return sorted(numbers, reverse=order == "descending")


def correlation(x: list[float], y: list[float]) -> float:
    """Pearson's correlation of two series of numbers, from -1 to 1.

    Args:
        x: The first series.
        y: The second series, as long as the first.
    """
    return round(statistics.correlation(x, y), 4)


def scale_numbers(numbers: list[float], factor: float) -> list[float]:
    """Multiply each of a list of numbers by a factor.

    Args:
        numbers: The numbers.
        factor: What each is multiplied by.
    """
    return [tidy(number * factor) for number in numbers]


def numbers_above(numbers: list[float], limit: float) -> list[float]:
    """Keep those of a list of numbers that are above a limit.

    Args:
        numbers: The numbers.
        limit: The number that must be exceeded.
    """
    return [number for number in numbers if number > limit]


def range_of(numbers: list[float]) -> float:
    """The range of a list of numbers, which is how far apart its ends are.

    Args:
        numbers: The numbers.
    """
    return tidy(max(numbers) - min(numbers))


def product_of(numbers: list[float]) -> float:
    """The product of a list of numbers.

    Args:
        numbers: The numbers.
    """
    return tidy(math.prod(numbers))


def count_numbers(numbers: list[float]) -> int:
    """Count the numbers of a list, which is how long it is.

    Args:
        numbers: The numbers.
    """
    return len(numbers)
