"""Pieces of texts: put in, taken out, found, exchanged."""


def remove_text(text: str, piece: str) -> str:
    """Take a piece out of a text, everywhere.

    Args:
        text: The text.
        piece: What to take out.
    """
    return text.replace(piece, "")


def append_text(text: str, addition: str) -> str:
    """Write an addition at the end of a text.

    Args:
        text: The text.
        addition: What to write after it.
    """
    return f"{text} {addition}"


def insert_before(addition: str, mark: str, text: str) -> str:
    """Insert an addition into a text, in front of a mark.

    Args:
        addition: What to insert.
        mark: What stands after it.
        text: The text to insert into.
    """
    return text.replace(mark, f"{addition} {mark}", 1)


def text_before(mark: str, text: str) -> str:
    """The part of a text that stands ahead of a mark.

    Args:
        mark: Where the part ends.
        text: The whole text.
    """
    return text.partition(mark)[0].rstrip()


def text_between(text: str, first: str, last: str) -> str:
    """The part of a text that lies between two of its words.

    Args:
        text: The whole text.
        first: After which word the part begins.
        last: Before which word the part ends.
    """
    return text.partition(first)[2].partition(last)[0].strip()


def starts_with(text: str, beginning: str) -> bool:
    """Whether a text starts with a beginning.

    Args:
        text: The text.
        beginning: How it may start.
    """
    return text.startswith(beginning)


def ends_with(ending: str, text: str) -> bool:
    """Whether a text stops with an ending.

    Args:
        ending: How it may stop.
        text: The text.
    """
    return text.endswith(ending)


def position_of(piece: str, text: str) -> int:
    """At which position of a text a piece stands, counted from 0; -1 if nowhere.

    Args:
        piece: What is looked for.
        text: The text that is searched.
    """
    return text.find(piece)


def exchange_words(text: str, first: str, second: str) -> str:
    """Let two words of a text change places.

    Args:
        text: The text.
        first: One word.
        second: The word it changes places with.
    """
    places = {first: second, second: first}
    return " ".join(places.get(word, word) for word in text.split())


def censor_word(text: str, word: str, cover: str) -> str:
    """Hide a word of a text behind a cover, a sign for each letter.

    Args:
        text: The text to censor.
        word: The word to hide.
        cover: The sign to hide it behind.
    """
    return text.replace(word, cover * len(word))


def enclose_text(text: str, left: str, right: str) -> str:
    """Enclose a text between two signs.

    Args:
        text: The text in the middle.
        left: The sign in front of it.
        right: The sign behind it.
    """
    return f"{left}{text}{right}"


def pad_text(text: str, width: int, filling: str) -> str:
    """Lengthen a text to a width by a filling at its end.

    Args:
        text: The text.
        width: How long it has to be.
        filling: The sign to lengthen it by.
    """
    return text.ljust(width, filling)


def repeat_text(text: str, count: int) -> str:
    """Say a text several times over.

    Args:
        text: The text.
        count: How many times.
    """
    return " ".join([text] * count)
