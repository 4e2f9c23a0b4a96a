"""How tasks ask for the tools of `tool_functions.codes`."""

from typing import Any

import numpy as np

from .sorts import NOUNS, TEXT, Sort, Wording, wordings_of


def _markup(rng: np.random.Generator, _: dict[str, Any]) -> str:
    first, second, third = rng.choice(NOUNS, 3, replace=False)
    return str(
        rng.choice([f"{first} & {second} < {third}", f"<b>{first}</b> {second} & {third}", f"{first} > {second}"])
    )


_asked = wordings_of("text")

WORDINGS: dict[str, Wording] = {
    "rotate_letters": _asked(
        *("text", {"text": TEXT}),
        *("encode {text} in ROT13", "rotate the letters of {text} by 13", "move each letter of {text} 13 places on"),
    ),
    "sha256_of": _asked(
        *("text", {"text": TEXT}),
        *("find the SHA-256 of {text}", "hash {text} with SHA-256", "give the SHA-256 digest of {text}"),
    ),
    "checksum": _asked(
        *("integer", {"text": TEXT}),
        *("find the checksum of {text}", "work out the CRC-32 of {text}"),
    ),
    "to_base64": _asked(
        *("text", {"text": TEXT}),
        *("encode {text} in Base64", "give the Base64 form of {text}", "turn {text} into Base64"),
    ),
    "quote_for_url": _asked(
        *("text", {"text": TEXT}),
        *("encode {text} for a web address", "quote {text} for a URL", "make {text} safe for a link"),
    ),
    "escape_html": _asked(
        *("text", {"text": Sort(_markup, ("text",), quoted=True)}),
        *("escape {text} for HTML", "make {text} safe for a web page", "encode the special characters of {text}"),
    ),
    "character_name": _asked(
        *(
            "text",
            {
                "character": Sort(
                    lambda rng, _: chr(int(rng.choice([*range(945, 970), *range(8592, 8600)]))), ("",), True
                )
            },
        ),
        *("give the Unicode name of {character}", "say what the character {character} is called"),
    ),
}
