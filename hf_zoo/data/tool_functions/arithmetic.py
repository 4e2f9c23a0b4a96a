"""Arithmetic of numbers."""

import math

from .tidy import tidy


def add(a: float, b: float) -> float:
    """Add two numbers: the sum of both.

    Args:
        a: The first number.
        b: The number to add to it.
    """
    return tidy(a + b)


def subtract(a: float, b: float) -> float:
    """Subtract one number from another: the difference of both.

    Args:
        a: The number to start from.
        b: The number to take away.
    """
    return tidy(a - b)


def multiply(a: float, b: float) -> float:
    """Multiply two numbers: their product.

    Args:
        a: The first factor.
        b: The second factor.
    """
    return tidy(a * b)


def divide(a: float, b: float) -> float:
    """Divide one number by another: their quotient.

    Args:
        a: The number to divide.
        b: The divisor, not zero.
    """
    return tidy(a / b)


def power(base: float, exponent: int) -> float:
    """Raise a number to a power.

    Args:
        base: The number to raise.
        exponent: How often it is multiplied by itself.
    """
    return tidy(base**exponent)


def remainder(a: int, b: int) -> int:
    """What is left of a division of whole numbers (modulo).

    Args:
        a: The number to divide.
        b: The divisor, not zero.
    """
    return a % b


def square_root(number: float) -> float:
    """The square root of a number.

    Args:
        number: The number, not negative.
    """
    return tidy(math.sqrt(number))


def absolute_value(number: float) -> float:
    """A number without its sign.

    Args:
        number: The number.
    """
    return abs(number)


def round_number(number: float, digits: int = 0) -> float:
    """Round a number to some digits after the point.

    Args:
        number: The number to round.
        digits: Digits to keep after the point.
    """
    return round(number, digits)


def greatest_common_divisor(a: int, b: int) -> int:
    """The greatest whole number that divides both.

    Args:
        a: The first whole number.
        b: The second whole number.
    """
    return math.gcd(a, b)


def least_common_multiple(a: int, b: int) -> int:
    """The least whole number that both divide.

    Args:
        a: The first whole number.
        b: The second whole number.
    """
    return math.lcm(a, b)


def factorial(number: int) -> int:
    """The product of all whole numbers from 1 to this one.

    Args:
        number: A whole number from 0 to 20.
    """
    if not 0 <= number <= 20:
        raise ValueError(f"number must be from 0 to 20, not {number}")
    return math.factorial(number)


def count_combinations(total: int, chosen: int) -> int:
    """In how many ways some things can be chosen from a number of things.

    Args:
        total: How many things there are.
        chosen: How many are chosen.
    """
    return math.comb(total, chosen)


def percent_of(percent: float, number: float) -> float:
    """So many percent of a number.

    Args:
        percent: The percentage.
        number: The number that it is taken of.
    """
    return tidy(number * percent / 100)


def hypotenuse(a: float, b: float) -> float:
    """The longest side of a right triangle, by Pythagoras.

    Args:
        a: One short side.
        b: The other short side.
    """
    return tidy(math.hypot(a, b))


def to_binary(number: int) -> str:
    """Write a whole number in binary digits.

    Args:
        number: The whole number.
    """
    return format(number, "b")


def to_hexadecimal(number: int) -> str:
    """Write a whole number in hexadecimal digits.

    Args:
        number: The whole number.
    """
    return format(number, "x")


def within_range(number: float, low: float, high: float) -> bool:
    """Whether a number lies in a range, both ends among it.

    Args:
        number: The number.
        low: The least that it may be.
        high: The most that it may be.
    """
    return low <= number <= high


def discount_price(price: float, discount: float) -> float:
    """A price after a discount.

    Args:
        price: The price before.
        discount: The percentage that is taken off.
    """
    return tidy(price * (1 - discount / 100))


def rectangle_area(width: float, height: float) -> float:
    """The area of a rectangle.

    Args:
        width: How wide it is.
        height: How high it is.
    """
    return tidy(width * height)


def average_speed(hours: float, distance: float) -> float:
    """The average speed of a way, in kilometres an hour.

    Args:
        hours: The hours that it takes.
        distance: Its length in kilometres.
    """
    return tidy(distance / hours)


def to_fahrenheit(degrees: float) -> float:
    """Convert a temperature from Celsius to Fahrenheit.

    Args:
        degrees: The temperature in degrees Celsius.
    """
    return tidy(degrees * 9 / 5 + 32)


def sum_of_digits(number: int) -> int:
    """Add up the digits of a whole number.

    Args:
        number: The whole number.
    """
    return sum(int(digit) for digit in str(abs(number)))


def is_prime(number: int) -> bool:
    """Whether a whole number is prime.

    Args:
        number: The whole number.
    """
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))
