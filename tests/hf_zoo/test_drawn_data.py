"""Datasets that are drawn, played and sampled: what they show is what they say, and every machine builds the same."""

import numpy as np
import pytest

from hf_zoo.data import load_dataset
from hf_zoo.data.glyphs import draw_glyph, split_by_words
from hf_zoo.data.solids import SOLIDS
from hf_zoo.data.splits import generator_of
from hf_zoo.data.tones import CHORDS, NOTES


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ZOO_CACHE", str(tmp_path_factory.mktemp("drawn")))
        yield


@pytest.fixture(scope="module")
def glyphs():
    return load_dataset("glyphs")


@pytest.fixture(scope="module")
def scenes():
    return load_dataset("glyph-scenes", split="train", scenes=40)


def test_every_image_has_one_caption_and_every_caption_one_image(glyphs):
    rows = [row for split in glyphs.values() for row in split]
    assert len(rows) > 4_000
    assert len({row["image"].tobytes() for row in rows}) == len(rows) == len({row["text"] for row in rows})
    row = next(row for row in rows if row["character"] == "é")
    assert row["text"] == "latin small letter e with acute"
    assert row["image"].size == (32, 32) and row["image"].mode == "RGB"


def test_held_out_names_are_new_combinations_of_known_words(glyphs):
    known = {word for text in glyphs["train"]["text"] for word in text.split()}
    for split in ("validation", "test"):
        texts = glyphs[split]["text"]
        assert len(texts) > 300
        assert not set(texts) & set(glyphs["train"]["text"])
        assert all(known.issuperset(text.split()) for text in texts)


def test_a_name_with_an_unknown_word_is_for_training():
    names = [f"letter {number}" for number in range(50)]  # each has a number of its own
    assert set(split_by_words(names, (0.5, 0.25, 0.25))) == {"train"}
    assert set(split_by_words([f"{a} {b}" for a in "abcdef" for b in "abcdef"], (0.5, 0.25, 0.25))) > {"train"}


def test_glyphs_keep_their_height_and_fit():
    comma, apostrophe = (np.asarray(draw_glyph(character, 32)) < 128 for character in ",'")
    assert np.flatnonzero(comma.any(1)).min() > np.flatnonzero(apostrophe.any(1)).max()
    wide = np.asarray(draw_glyph("\N{THREE-EM DASH}", 32)) < 128  # wider than the image at the size of the others
    assert wide.any() and wide[:, 0].sum() + wide[:, -1].sum() < wide.sum()
    assert draw_glyph(" ", 32) is None


def test_masks_and_boxes_are_those_of_the_picture(scenes):
    assert {len(row["names"]) for row in scenes} == {1, 2, 3, 4}
    for row in scenes:
        image = np.asarray(row["image"], dtype=float)
        masks = np.stack([np.asarray(mask) for mask in row["masks"]])
        assert set(np.unique(masks)) == {0, 255}
        masks = masks > 0
        assert masks.sum(0).max() == 1  # no pixel shows two glyphs
        assert row["text"].split(" and ") == row["names"] or " and " in "".join(row["names"])
        ground = np.median(image[~masks.any(0)], axis=0)
        for mask, (left, top, right, bottom) in zip(masks, row["boxes"], strict=True):
            inside = np.zeros_like(mask)
            inside[int(top) : int(bottom), int(left) : int(right)] = True
            assert mask[inside].sum() == mask.sum() > 30
            assert mask[int(top)].any() and mask[int(bottom) - 1].any()
            assert np.abs(image[mask].mean(0) - ground).max() > 30  # it can be seen


def test_a_scene_belongs_to_its_number(scenes):
    more = load_dataset("glyph-scenes", scenes=60)
    texts = [row["text"] for split in more.values() for row in split]
    assert set(scenes["text"]) <= set(texts)
    letters = load_dataset("glyph-scenes", split="train", scenes=10, alphabet="capitals", size=64)
    assert all(n.startswith(("latin capital letter", "digit")) for row in letters for n in row["names"])
    assert letters[0]["image"].size == (64, 64)
    with pytest.raises(ValueError, match="alphabet is 'all', 'capitals' or 'digits', not 'greek'"):
        load_dataset("glyph-scenes", alphabet="greek")


def test_films_move_where_they_say():
    films = load_dataset("moving-glyphs", split="train", films=40)
    assert set(films["direction"]) == {"left", "right", "up", "down"}
    for row in films:
        assert row["text"] == f"{row['name']} moving {row['direction']}"
        first, last = (255 - np.asarray(row["frames"][i].convert("L"), dtype=float) for i in (2, 5))
        # The middle of the ink; films start and end beyond the edge, their middle frames do not
        middles = [[(ink.sum(1 - axis) @ np.arange(32)) / ink.sum() for axis in (0, 1)] for ink in (first, last)]
        down, across = np.subtract(middles[1], middles[0])
        expected = {"left": -across, "right": across, "up": -down, "down": down}[row["direction"]]
        assert expected > 2, row["text"]


def test_tones_have_the_pitches_of_their_names():
    rows = load_dataset("tones", split="train", takes=1, seconds=0.25)
    row = next(row for row in rows if row["note"] == "a" and row["octave"] == 4 and row["kind"] == "note")
    assert row["text"] == f"a note, octave 4, {row['timbre']}"
    sound = np.array(row["audio"]["array"])
    assert row["audio"]["sampling_rate"] == 16_000 and len(sound) == 4_000 and np.abs(sound).max() <= 1
    strongest = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 64_000)).argmax() / 4  # in Hz
    assert strongest == pytest.approx(440, rel=0.02)
    assert {row["kind"] for row in rows} == set(CHORDS) and {row["note"] for row in rows} == set(NOTES)


def test_held_out_tones_are_new_in_all_their_takes():
    splits = load_dataset("tones", takes=2, seconds=0.01)
    texts = {name: set(rows["text"]) for name, rows in splits.items()}
    assert not texts["train"] & texts["test"] and not texts["train"] & texts["validation"]
    assert sum(map(len, texts.values())) * 2 == sum(splits.num_rows.values())


def test_solids_have_their_shapes():
    splits = load_dataset("solids", points=200, each=6)
    rows = splits["train"].with_format("numpy")
    assert rows[0]["points"].shape == (200, 3)
    names = splits["train"].features["label"].names
    assert names == list(SOLIDS)
    for row in rows:
        assert names[row["label"]] == row["text"]
        assert np.linalg.norm(row["points"], axis=1).max() < 1.1


@pytest.mark.parametrize("name", SOLIDS)
def test_points_lie_on_the_surface(name):
    points = SOLIDS[name](generator_of(name), 500)
    assert points.shape == (500, 3)
    x, y, z = points.T
    radius = np.hypot(x, y)
    distance = {
        "sphere": lambda: np.linalg.norm(points, axis=1) - 1,
        "torus": lambda: np.hypot(radius - 1, z) - 0.35,
        "box": lambda: np.isclose(abs(points), abs(points).max(0), atol=1e-9).any(1) - 1.0,
        "tetrahedron": lambda: np.max([-x - y - z, -x + y + z, x - y + z, x + y - z], 0) - 1,
        "octahedron": lambda: abs(points).sum(1) - 1,
        "pyramid": lambda: np.where(z == 0, 0, np.maximum(abs(x), abs(y)) + z / 1.5 - 1),
        "cylinder": lambda: np.where(abs(z) == abs(z).max(), 0, radius - 1),
        "cone": lambda: np.where(z == 0, 0, z / (1 - radius) - (z / (1 - radius)).max()),
        "helix": lambda: np.maximum(abs(radius - 1) - 0.1, 0),
    }[name]()
    np.testing.assert_allclose(distance, 0, atol=1e-6)


def test_digits_are_images():
    pytest.importorskip("sklearn")
    rows = load_dataset("digits", split="test")
    names = rows.features["label"].names
    assert rows[0]["image"].size == (8, 8)
    assert all(row["text"] == f"digit {names[row['label']]}" for row in rows)
    assert max(row["image"].getextrema()[1] for row in rows) == 255
