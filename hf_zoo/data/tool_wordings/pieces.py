"""How tasks ask for the tools of `tool_functions.pieces`."""

from .sorts import SMALL, SYMBOL, TEXT, WORD, Sort, Wording, integer, word_of, wordings_of

INSIDE = Sort(word_of("text"), quoted=True)

_asked = wordings_of("text")

WORDINGS: dict[str, Wording] = {
    "remove_text": _asked(
        *("text", {"text": TEXT, "piece": INSIDE}),
        *("take {piece} out of {text}", "remove {piece} from {text}", "strip {text} of every {piece}"),
    ),
    "append_text": _asked(
        *("text", {"text": TEXT, "addition": WORD}),
        *("append {addition} to {text}", "write {addition} after {text}", "let {text} be followed by {addition}"),
    ),
    "insert_before": _asked(
        *("text", {"text": TEXT, "mark": INSIDE, "addition": WORD}),
        *("insert {addition} before {mark} in {text}", "write {addition} in front of {mark} in {text}"),
        "insert into {text} the word {addition} before the mark {mark}",
    ),
    "text_before": _asked(
        *("text", {"text": TEXT, "mark": INSIDE}),
        *("give what stands ahead of {mark} in {text}", "find the part of {text} before {mark}"),
        "keep {text} as far as the mark {mark}",
    ),
    "text_between": _asked(
        *("text", {"text": TEXT, "first": INSIDE, "last": INSIDE}),
        *("give what lies between {first} and {last} in {text}", "find the part of {text} from {first} to {last}"),
        "say what {text} has after {first} and before {last}",
    ),
    "starts_with": _asked(
        *("boolean", {"text": TEXT, "beginning": INSIDE}),
        *("check if {text} starts with {beginning}", "say whether {beginning} is the beginning of {text}"),
        "tell if {text} begins with {beginning}",
    ),
    "ends_with": _asked(
        *("boolean", {"text": TEXT, "ending": INSIDE}),
        *("check if {text} ends with {ending}", "say whether {ending} is the ending of {text}"),
        "tell if {text} stops with {ending}",
    ),
    "position_of": _asked(
        *("integer", {"text": TEXT, "piece": INSIDE}),
        *("find the position of {piece} in {text}", "say where in {text} the piece {piece} stands"),
        "search {text} for {piece}",
    ),
    "exchange_words": _asked(
        *("text", {"text": TEXT, "first": INSIDE, "second": INSIDE}),
        *("let {first} and {second} change places in {text}", "exchange in {text} the words {first} and {second}"),
        "make {first} trade places with {second} in {text}",
    ),
    "censor_word": _asked(
        *("text", {"text": TEXT, "word": INSIDE, "cover": SYMBOL}),
        *("hide {word} behind {cover} in {text}", "censor the word {word} of {text} by {cover}"),
        "use {cover} to hide {word} in {text}",
    ),
    "enclose_text": _asked(
        *("text", {"text": TEXT, "left": SYMBOL, "right": SYMBOL}),
        *("enclose {text} between {left} and {right}", "write {left} in front of and {right} behind {text}"),
        "surround {text} by {left} on the left and {right} on the right",
    ),
    "pad_text": _asked(
        *("text", {"text": TEXT, "width": Sort(integer(40, 60)), "filling": SYMBOL}),
        *("lengthen {text} to {width} by {filling}", "pad {text} with {filling} to a width of {width}"),
        "use {filling} to make {text} {width} long",
    ),
    "repeat_text": _asked(
        *("text", {"text": TEXT, "count": SMALL}),
        *("say {text} {count} times", "repeat {text} {count} times over", "give {count} repeats of {text}"),
    ),
}
