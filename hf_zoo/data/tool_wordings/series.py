"""How tasks ask for the tools of `tool_functions.series`."""

from .sorts import NUMBERS, ORDER, SMALL, Sort, Wording, integer


def _statistics(returns: str, *phrases: str, **sorts: Sort) -> Wording:
    return Wording("statistics", returns, {"numbers": NUMBERS, **sorts}, phrases)


WORDINGS: dict[str, Wording] = {
    "mean": _statistics(
        "number",
        *("find the mean of {numbers}", "average {numbers}", "work out the average of {numbers}"),
    ),
    "median": _statistics(
        "number",
        *("find the median of {numbers}", "say which number is in the middle of {numbers}"),
    ),
    "most_frequent": _statistics(
        "number",
        *("find the mode of {numbers}", "say which number is the most frequent in {numbers}"),
    ),
    "standard_deviation": _statistics(
        "number",
        *("find the standard deviation of {numbers}", "work out the standard deviation of the sample {numbers}"),
    ),
    "variance": _statistics(
        "number",
        *("find the variance of {numbers}", "work out the variance of the sample {numbers}"),
    ),
    "sum_of": _statistics(
        "number",
        *("sum up {numbers}", "find the total of {numbers}", "add up all of {numbers}"),
    ),
    "largest_of": _statistics(
        "number",
        *(
            "find the largest of {numbers}",
            "say which number in {numbers} is the greatest",
            "take the most of {numbers}",
        ),
    ),
    "smallest_of": _statistics(
        "number",
        *("find the smallest of {numbers}", "say which number in {numbers} is the least"),
    ),
    "sort_numbers": _statistics(
        "numbers",
        *("sort {numbers} in {order} order", "put {numbers} in {order} order", "sort {numbers}"),
        order=ORDER,
    ),
    "correlation": Wording(
        "statistics",
        "number",
        {
            "x": NUMBERS,
            "y": Sort(lambda rng, values: rng.integers(1, 60, len(values["x"])).tolist()),
        },
        ("find the correlation of {x} and {y}", "say how {x} and {y} correlate"),
    ),
    "scale_numbers": _statistics(
        "numbers",
        *("multiply each of {numbers} by {factor}", "scale {numbers} by the factor {factor}"),
        factor=SMALL,
    ),
    "numbers_above": _statistics(
        "numbers",
        *("keep those of {numbers} above {limit}", "say which of {numbers} exceed the limit {limit}"),
        limit=Sort(integer(5, 40)),
    ),
    "range_of": _statistics(
        "number",
        *("find the range of {numbers}", "say how far apart the ends of {numbers} are"),
    ),
    "product_of": _statistics(
        "number",
        *("find the product of {numbers}", "multiply all of {numbers} with each other"),
    ),
    "count_numbers": _statistics(
        "integer",
        *("count the numbers in {numbers}", "say how long the list {numbers} is"),
    ),
}
