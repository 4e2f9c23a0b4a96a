"""How tasks ask for the tools of `tool_functions.arithmetic`."""

from .sorts import INTEGER, NUMBER, SMALL, Sort, Wording, integer, wordings_of

_PAIR = {"a": NUMBER, "b": NUMBER}
_INTEGERS = {"a": INTEGER, "b": INTEGER}
_asked = wordings_of("arithmetic")

WORDINGS: dict[str, Wording] = {
    "add": _asked(
        *("number", _PAIR),
        *("add {a} and {b}", "work out {a} plus {b}", "find the sum of {a} and {b}", "increase {a} by {b}"),
    ),
    "subtract": _asked(
        *("number", _PAIR),
        *("subtract {b} from {a}", "work out {a} minus {b}", "take {b} away from {a}", "decrease {a} by {b}"),
    ),
    "multiply": _asked(
        *("number", _PAIR),
        *("multiply {a} by {b}", "work out {a} times {b}", "find the product of {a} and {b}"),
    ),
    "divide": _asked(
        *("number", _PAIR),
        *("divide {a} by {b}", "work out the quotient of {a} and {b}", "find {a} divided by {b}"),
    ),
    "power": _asked(
        *("number", {"base": Sort(integer(2, 30), ("integer",)), "exponent": SMALL}),
        *("raise {base} to the power {exponent}", "find {base} to the power of {exponent}"),
    ),
    "remainder": _asked(
        *("integer", _INTEGERS),
        *("find the remainder of {a} divided by {b}", "work out {a} modulo {b}", "say what is left of {a} over {b}"),
    ),
    "square_root": _asked(
        *("number", {"number": NUMBER}),
        *("take the square root of {number}", "find the square root of {number}", "work out the root of {number}"),
    ),
    "absolute_value": _asked(
        *("number", {"number": Sort(integer(-900, -2), ("number", "integer"))}),
        *("give the absolute value of {number}", "drop the sign of {number}", "find the magnitude of {number}"),
    ),
    "round_number": _asked(
        "number",
        {"number": Sort(lambda rng, _: round(float(rng.uniform(1, 900)), 6), ("number",)), "digits": SMALL},
        *("round {number} to {digits} digits", "round {number} to {digits} places after the point"),
        *("round {number} to a whole number", "round {number}"),
    ),
    "greatest_common_divisor": _asked(
        *("integer", _INTEGERS),
        *("find the greatest common divisor of {a} and {b}", "say which largest number divides both {a} and {b}"),
    ),
    "least_common_multiple": _asked(
        *("integer", _INTEGERS),
        *("find the least common multiple of {a} and {b}", "say which smallest number both {a} and {b} divide"),
    ),
    "factorial": _asked(
        *("integer", {"number": Sort(integer(2, 20), ("integer",))}),
        *("find the factorial of {number}", "multiply all numbers from 1 to {number}", "work out {number} factorial"),
    ),
    "count_combinations": _asked(
        *("integer", {"total": Sort(integer(9, 60), ("integer",)), "chosen": SMALL}),
        *(
            "count the ways to choose {chosen} of {total} things",
            "say how many combinations of {chosen} in {total} are",
        ),
    ),
    "percent_of": _asked(
        *("number", {"percent": Sort(integer(1, 99)), "number": NUMBER}),
        *(
            "find {percent} percent of {number}",
            "work out {percent}% of {number}",
            "take {percent} percent of {number}",
        ),
    ),
    "hypotenuse": _asked(
        *("number", _PAIR),
        *("find the hypotenuse of a right triangle with sides {a} and {b}", "apply Pythagoras to {a} and {b}"),
        "get the longest side of the right triangle whose short sides are {a} and {b}",
    ),
    "to_binary": _asked(
        *("text", {"number": INTEGER}),
        *("write {number} in binary", "convert {number} to binary digits", "give the binary form of {number}"),
    ),
    "to_hexadecimal": _asked(
        *("text", {"number": INTEGER}),
        *(
            "write {number} in hexadecimal",
            "convert {number} to base sixteen",
            "give the hexadecimal form of {number}",
        ),
    ),
    "within_range": _asked(
        *("boolean", {"number": NUMBER, "low": Sort(integer(2, 100)), "high": Sort(integer(120, 400))}),
        *("check if {number} lies between {low} and {high}", "say whether {number} is in the range {low} to {high}"),
        "tell if the range from {low} to {high} has {number}",
    ),
    "discount_price": _asked(
        *("number", {"price": NUMBER, "discount": Sort(integer(1, 99))}),
        *("take a discount of {discount} percent off the price {price}", "discount {price} by {discount} percent"),
        "work out what {price} costs after a discount of {discount} percent",
    ),
    "rectangle_area": _asked(
        *("number", {"width": NUMBER, "height": NUMBER}),
        *("find the area of a rectangle {width} wide and {height} high", "work out the area of {width} by {height}"),
    ),
    "average_speed": _asked(
        *("number", {"distance": NUMBER, "hours": SMALL}),
        *(
            "find the speed of {distance} kilometres in {hours} hours",
            "say how fast {distance} km in {hours} hours is",
        ),
    ),
    "to_fahrenheit": _asked(
        *("number", {"degrees": NUMBER}),
        *("convert {degrees} degrees Celsius to Fahrenheit", "say what {degrees} Celsius is in Fahrenheit"),
    ),
    "sum_of_digits": _asked(
        *("integer", {"number": INTEGER}),
        *("add up the digits of {number}", "find the sum of all digits of {number}"),
    ),
    "is_prime": _asked(
        *("boolean", {"number": INTEGER}),
        *("check if {number} is prime", "say whether {number} is a prime number"),
    ),
}
