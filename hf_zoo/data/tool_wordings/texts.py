"""How tasks ask for the tools of `tool_functions.texts`."""

import string

from .sorts import NOUNS, ORDER, SYMBOL, TEXT, WORD, WORDS, Sort, Wording, integer, word_of, wordings_of

_asked = wordings_of("text")

WORDINGS: dict[str, Wording] = {
    "count_words": _asked(
        *("integer", {"text": TEXT}),
        *("count the words in {text}", "say how many words {text} has", "find the number of words of {text}"),
    ),
    "count_letters": _asked(
        *("integer", {"text": TEXT}),
        *("count the letters in {text}", "say how many letters {text} has", "find the number of letters of {text}"),
    ),
    "to_upper": _asked(
        *("text", {"text": TEXT}),
        *("write {text} in capital letters", "put {text} in upper case", "make {text} all capitals"),
    ),
    "to_title": _asked(
        *("text", {"text": TEXT}),
        *("begin each word of {text} with a capital", "put {text} in title case", "write {text} as a title"),
    ),
    "reverse_text": _asked(
        *("text", {"text": TEXT}),
        *("write {text} backwards", "reverse {text}", "turn {text} around"),
    ),
    "replace_text": _asked(
        *("text", {"text": TEXT, "old": Sort(word_of("text"), quoted=True), "new": WORD}),
        *("replace {old} by {new} in {text}", "put {new} in the place of {old} in {text}"),
        "swap every {old} in {text} for {new}",
    ),
    "count_occurrences": _asked(
        "integer",
        {"text": TEXT, "piece": Sort(lambda rng, _: str(rng.choice(list(string.ascii_lowercase))), quoted=True)},
        *("count how often {piece} occurs in {text}", "say how many times {text} has {piece}"),
    ),
    "longest_word": _asked(
        *("text", {"text": TEXT}),
        *("find the longest word of {text}", "say which word in {text} is the longest"),
    ),
    "sort_words": _asked(
        *("text", {"text": TEXT, "order": ORDER}),
        *("sort the words of {text} in {order} order", "put the words of {text} in {order} alphabetical order"),
        *("sort the words of {text}", "put the words of {text} in alphabetical order"),
    ),
    "join_words": _asked(
        *("text", {"words": WORDS, "separator": SYMBOL}),
        *("join {words} with {separator}", "put {words} together with {separator} between them"),
    ),
    "split_text": _asked(
        "words",
        {
            "text": Sort(
                lambda rng, _: str(rng.choice(list(",;/:"))).join(rng.choice(NOUNS, 4, replace=False)), quoted=True
            ),
            "separator": Sort(lambda rng, values: next(c for c in values["text"] if c in ",;/:"), quoted=True),
        },
        *(
            "split {text} at {separator}",
            "cut {text} into pieces at every {separator}",
            "break {text} up at {separator}",
        ),
    ),
    "shorten_text": _asked(
        *("text", {"text": TEXT, "width": Sort(integer(14, 24))}),
        *("shorten {text} to {width} characters", "cut {text} to a width of {width}"),
    ),
    "text_similarity": _asked(
        *("number", {"first": TEXT, "second": TEXT}),
        *("say how similar {first} and {second} are", "compare {first} with {second}"),
    ),
    "initials_of": _asked(
        *("text", {"text": TEXT}),
        *("find the initials of {text}", "give the initials of each word in {text}", "abbreviate {text} to initials"),
    ),
    "swap_case": _asked(
        *("text", {"text": TEXT}),
        *("write small letters large in {text}", "swap the case of {text}", "make small letters of {text} large"),
    ),
    "unique_words": _asked(
        *("words", {"text": TEXT}),
        *("list the different words of {text}", "say which unique words {text} is made of"),
    ),
    "is_palindrome": _asked(
        *("boolean", {"text": TEXT}),
        *("check if {text} is a palindrome", "say whether {text} reads alike from both sides"),
    ),
}
