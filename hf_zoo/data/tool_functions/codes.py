"""Texts in other codes."""

import base64
import binascii
import codecs
import hashlib
import html
import unicodedata
import urllib.parse


def rotate_letters(text: str) -> str:
    """Encode a text by moving every letter 13 places on (ROT13).

    Args:
        text: The text.
    """
    return codecs.encode(text, "rot13")


def sha256_of(text: str) -> str:
    """The SHA-256 digest of a text, in hexadecimal digits.

    Args:
        text: The text.
    """
    return hashlib.sha256(text.encode()).hexdigest()


def checksum(text: str) -> int:
    """The CRC-32 checksum of a text.

    Args:
        text: The text.
    """
    return binascii.crc32(text.encode())


def to_base64(text: str) -> str:
    """Encode a text in Base64.

    Args:
        text: The text.
    """
    return base64.b64encode(text.encode()).decode()


def quote_for_url(text: str) -> str:
    """Encode a text so that it can stand in a web address.

    Args:
        text: The text.
    """
    return urllib.parse.quote(text)


def escape_html(text: str) -> str:
    """Encode the special characters of a text for HTML.

    Args:
        text: The text.
    """
    return html.escape(text)


def character_name(character: str) -> str:
    """The official Unicode name of a character.

    Args:
        character: A single character.
    """
    return unicodedata.name(character)
