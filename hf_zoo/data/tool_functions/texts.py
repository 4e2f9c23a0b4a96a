"""Texts: counting, changing, cutting and comparing."""

import difflib
import string
import textwrap
from typing import Literal


def count_words(text: str) -> int:
    """Count the words of a text.

    Args:
        text: The text.
    """
    return len(text.split())


def count_letters(text: str) -> int:
    """Count the characters of a text that are letters.

    Args:
        text: The text.
    """
    return sum(character.isalpha() for character in text)


def to_upper(text: str) -> str:
    """Write a text in capital letters.

    Args:
        text: The text.
    """
    return text.upper()


def to_title(text: str) -> str:
    """Begin every word of a text with a capital letter.

    Args:
        text: The text.
    """
    return string.capwords(text)


def reverse_text(text: str) -> str:
    """Write a text backwards.

    Args:
        text: The text.
    """
    return text[::-1]


def replace_text(text: str, old: str, new: str) -> str:
    """Replace a piece of a text by another, everywhere.

    Args:
        text: The text.
        old: What to look for.
        new: What to put in its place.
    """
    return text.replace(old, new)


def count_occurrences(text: str, piece: str) -> int:
    """Count how often a piece occurs in a text.

    Args:
        text: The text to look in.
        piece: What to look for.
    """
    return text.count(piece)


def longest_word(text: str) -> str:
    """The longest word of a text; the first if several are as long.

    Args:
        text: The text.
    """
    return max(text.split(), key=len)


def sort_words(text: str, order: Literal["ascending", "descending"] = "ascending") -> str:
    """Put the words of a text in alphabetical order.

    Args:
        text: The text.
        order: Alphabetical, or the other way round.
    """
    return " ".join(sorted(text.split(), reverse=order == "descending"))


def join_words(words: list[str], separator: str) -> str:
    """Join words to one text.

    Args:
        words: The words.
        separator: What to put between them.
    """
    return separator.join(words)


def split_text(text: str, separator: str) -> list[str]:
    """Cut a text into pieces wherever a separator stands.

    Args:
        text: The text.
        separator: Where to cut.
    """
    return text.split(separator)


def shorten_text(text: str, width: int) -> str:
    """Cut a text to a width, at the end of a word, with dots where something was left out.

    Args:
        text: The text.
        width: Most characters that may remain.
    """
    return textwrap.shorten(text, width, placeholder="...")


def text_similarity(first: str, second: str) -> float:
    """How alike two texts are, from 0 to 1.

    Args:
        first: One text.
        second: The other text.
    """
    return round(difflib.SequenceMatcher(None, first, second).ratio(), 4)


def initials_of(text: str) -> str:
    """The initials of the words of a text.

    Args:
        text: The text.
    """
    return "".join(word[0] for word in text.split())


def swap_case(text: str) -> str:
    """Write small letters of a text large, and large ones small.

    Args:
        text: The text.
    """
    return text.swapcase()


def unique_words(text: str) -> list[str]:
    """The different words of a text, in alphabetical order.

    Args:
        text: The text.
    """
    return sorted(set(text.split()))


def is_palindrome(text: str) -> bool:
    """Whether a text reads alike from both sides.

    Args:
        text: The text.
    """
    return text == text[::-1]
