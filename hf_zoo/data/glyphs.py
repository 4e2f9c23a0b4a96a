"""Pictures with captions, scenes with masks and films, all drawn from a font that matplotlib ships.

The captions are the official names of Unicode, which are composed of few words: "latin small letter a with macron".
"""

import string
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MissingExtra
from .splits import generator_of, split_of

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image

FRAMES = 8
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_ALPHABETS = {"capitals": [*string.ascii_uppercase, *string.digits], "digits": [*string.digits]}
_LEAST_VISIBLE = 30  # pixels of a glyph in a scene, fewer of which nobody could point at
_TRIES = 30  # places that are tried for the glyphs of a scene, which do not overlap


def glyphs(size: int = 32) -> tuple["Dataset", list[str]]:
    """One row a glyph of DejaVu Sans: `image` (black on white, RGB), `text` (its name in lower case), `character`.

    A glyph that looks like an earlier one (Greek capital alpha like Latin A) is left out, so that each image has one
    right caption.

    Args:
        size: height and width of the images, in pixels.

    Returns:
        The rows, and the caption by which each is split.
    """
    from datasets import Dataset, Features, Image, Value

    rows, seen = [], set()
    for character in _characters():
        image = draw_glyph(character, size)
        if image is None or image.tobytes() in seen:
            continue
        seen.add(image.tobytes())
        rows.append({"image": image.convert("RGB"), "text": name_of(character), "character": character})
    features = Features({"image": Image(), "text": Value("string"), "character": Value("string")})
    return Dataset.from_list(rows, features=features), [row["text"] for row in rows]


def split_by_words(names: list[str], shares: tuple[float, float, float]) -> list[str]:
    """Splits whose held-out names are new combinations of words that training names hold.

    A hash of each name decides; one with a word that no training name has goes to the training split.

    Args:
        names: of the items.
        shares: of train, validation and test before names with unknown words go to train.
    """
    splits = [split_of(name, shares) for name in names]
    known = {word for name, split in zip(names, splits, strict=True) if split == "train" for word in name.split()}
    return [s if known.issuperset(name.split()) else "train" for name, s in zip(names, splits, strict=True)]


def glyph_scenes(size: int = 128, scenes: int = 2_000, alphabet: str = "all") -> tuple["Dataset", list[str]]:
    """One row a scene of one to four bold glyphs that are turned, coloured and scaled, before a shaded ground.

    `image` (RGB), `masks` (for each glyph the pixels that show it, an image of 0 and 255), `boxes` (of the masks:
    left, top, right, bottom in pixels, the last two exclusive), `names` of the glyphs and `text`, which says them all.

    Args:
        size: height and width of the images, in pixels.
        scenes: how many.
        alphabet: "all" glyphs, "capitals", which are the 26 letters and ten digits, or "digits" alone.

    Returns:
        The rows, and the number of each scene, by which it is split.

    Raises:
        ValueError: no such alphabet.
    """
    from datasets import Dataset, Features, Image, List, Value

    characters = _alphabet(alphabet)
    keys = [f"scene {number}" for number in range(scenes)]
    rows = [_scene(generator_of(key), characters, size) for key in keys]
    features = Features(
        {
            "image": Image(),
            "masks": List(Image()),
            "boxes": List(List(Value("float32"), length=4)),
            "names": List(Value("string")),
            "text": Value("string"),
        }
    )
    return Dataset.from_list(rows, features=features), keys


def moving_glyphs(size: int = 32, films: int = 2_000, alphabet: str = "capitals") -> tuple["Dataset", list[str]]:
    """One row a film of eight frames in which a glyph crosses the picture.

    `frames` (RGB images in their order), `text` ("latin capital letter a moving left"), `name`, `direction`.

    Args:
        size: height and width of the frames, in pixels.
        films: how many.
        alphabet: "all" glyphs, "capitals", which are the 26 letters and ten digits, or "digits" alone.

    Returns:
        The rows, and the number of each film, by which it is split.

    Raises:
        ValueError: no such alphabet.
    """
    from datasets import Dataset, Features, Image, List, Value

    characters = _alphabet(alphabet)
    keys = [f"film {number}" for number in range(films)]
    rows = [_film(generator_of(key), characters, size) for key in keys]
    texts = {column: Value("string") for column in ("text", "name", "direction")}
    return Dataset.from_list(rows, features=Features({"frames": List(Image()), **texts})), keys


def name_of(character: str) -> str:
    """The official name of a character, in lower case."""
    return unicodedata.name(character).lower()


def draw_glyph(character: str, size: int, face: str = "DejaVuSans") -> "Image | None":
    """A grey picture of one character, black on white; None where the font shows nothing.

    It stands on a common base line, so that a comma and an apostrophe differ, and is made smaller where it would not
    fit.

    Args:
        character: of the font.
        size: height and width, in pixels.
        face: one that matplotlib ships.
    """
    from PIL import Image, ImageDraw, ImageFont

    for points in range(round(0.75 * size), 4, -1):
        # One glyph needs no shaping, and the library for it may be missing
        font = ImageFont.truetype(_font(face), points, layout_engine=ImageFont.Layout.BASIC)
        left, top, right, bottom = font.getbbox(character, anchor="ls")
        if right <= left or bottom <= top:
            return None
        if right - left <= size and bottom - top <= size:
            break
    base = min(max(round(0.75 * size), -top), size - bottom)
    image = Image.new("L", (size, size), 255)
    ImageDraw.Draw(image).text(((size - left - right) / 2, base), character, fill=0, font=font, anchor="ls")
    return None if image.getextrema()[0] == 255 else image


def _scene(random: np.random.Generator, characters: list[str], size: int) -> dict[str, Any]:
    from PIL import Image, ImageChops

    across = np.linspace(0, 1, size)[:, None, None] * random.uniform(-40, 40, 3)
    down = np.linspace(0, 1, size)[None, :, None] * random.uniform(-40, 40, 3)
    ground = random.uniform(40, 215, 3)
    canvas = np.clip(ground + across + down, 0, 255)
    owner = np.full((size, size), -1)
    names: list[str] = []
    wanted = random.integers(1, 5)
    for _ in range(_TRIES):
        if len(names) == wanted:
            break
        character = characters[random.integers(len(characters))]
        height = int(random.integers(size // 3, 5 * size // 8))
        turned = draw_glyph(character, height, "DejaVuSans-Bold")  # strokes of several pixels
        if turned is None:
            continue
        turned = turned.rotate(random.uniform(-30, 30), expand=True, fillcolor=255)
        turned = turned.crop(ImageChops.invert(turned).getbbox())
        ink = 1 - np.asarray(turned, dtype=np.float64) / 255
        row, column = (int(random.integers(0, max(size - side, 0) + 1)) for side in ink.shape)
        ink = ink[: size - row, : size - column]
        place = (slice(row, row + ink.shape[0]), slice(column, column + ink.shape[1]))
        covered = (owner[place] >= 0) & (ink > 0.5)
        if (ink > 0.5).sum() < _LEAST_VISIBLE or covered.any() or name_of(character) in names:
            continue
        share = random.uniform(0, 0.4, 3)  # of the ground's own light or dark, so that the glyph stands out
        colour = np.where(ground > 127, ground * share, 255 - (255 - ground) * share)
        canvas[place] = canvas[place] * (1 - ink[..., None]) + colour * ink[..., None]
        owner[place][ink > 0.5] = len(names)
        names.append(name_of(character))
    if not names:
        return _scene(random, characters, size)
    masks = [owner == number for number in range(len(names))]
    return {
        "image": Image.fromarray(canvas.astype(np.uint8)),
        "masks": [Image.fromarray(mask.astype(np.uint8) * 255) for mask in masks],
        "boxes": [_box(mask) for mask in masks],
        "names": names,
        "text": " and ".join(names),
    }


def _box(mask: np.ndarray) -> list[float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [float(edge) for edge in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]


def _film(random: np.random.Generator, characters: list[str], size: int) -> dict[str, Any]:
    from PIL import ImageChops

    character = characters[random.integers(len(characters))]
    direction = list(DIRECTIONS)[random.integers(len(DIRECTIONS))]
    glyph = ImageChops.invert(draw_glyph(character, size))  # shifted as light on dark: what leaves comes in as dark
    speed = random.uniform(0.5, 1.0) * size / FRAMES
    steps = speed * (np.arange(FRAMES) - (FRAMES - 1) / 2)
    across, down = DIRECTIONS[direction]
    frames = []
    for step in steps.round().astype(int).tolist():
        moved = glyph.transform(glyph.size, 0, (1, 0, -across * step, 0, 1, -down * step))
        frames.append(ImageChops.invert(moved).convert("RGB"))
    name = name_of(character)
    return {"frames": frames, "text": f"{name} moving {direction}", "name": name, "direction": direction}


def _alphabet(name: str) -> list[str]:
    if name == "all":
        return [character for character in _characters() if draw_glyph(character, 32) is not None]
    if name not in _ALPHABETS:
        raise ValueError(f"alphabet is 'all', 'capitals' or 'digits', not {name!r}")
    return _ALPHABETS[name]


def _characters() -> Iterator[str]:
    """Every character of the font that has a name, in the order of their code points."""
    from matplotlib.ft2font import FT2Font

    for code in sorted(FT2Font(_font()).get_charmap()):
        if unicodedata.name(chr(code), ""):
            yield chr(code)


def _font(face: str = "DejaVuSans") -> str:
    try:
        import matplotlib
    except ImportError:
        raise MissingExtra("matplotlib", "plots") from None
    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{face}.ttf"))
