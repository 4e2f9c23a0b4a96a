"""Notes and chords, synthesised, with what they are called."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .splits import generator_of

if TYPE_CHECKING:
    from datasets import Dataset

SAMPLING_RATE = 16_000  # samples a second
NOTES = ("c", "c sharp", "d", "d sharp", "e", "f", "f sharp", "g", "g sharp", "a", "a sharp", "b")
OCTAVES = (3, 4, 5)
CHORDS = {  # semitones above the root
    "note": (0,),
    "major chord": (0, 4, 7),
    "minor chord": (0, 3, 7),
    "diminished chord": (0, 3, 6),
    "augmented chord": (0, 4, 8),
}
TIMBRES = {  # loudness of each overtone
    "flute": (1.0, 0.1),
    "organ": (1.0, 0.6, 0.4, 0.5, 0.0, 0.3),
    "clarinet": (1.0, 0.0, 0.7, 0.0, 0.5, 0.0, 0.3),
    "string": tuple(1 / n for n in range(1, 9)),
}


def tones(takes: int = 2, seconds: float = 1.0) -> tuple["Dataset", list[str]]:
    """One row a sound: `audio` (`array` at a `sampling_rate` of 16,000), `text` ("a minor chord, octave 4, organ").

    Beside them `note`, `kind` ("note", "major chord", ...), `octave` and `timbre`. Every note, kind, octave and timbre
    is played; takes differ in loudness, tuning, decay and noise. The audio is a plain column of numbers: the feature
    `Audio` of `datasets` reads and writes through a library of its own, which no sine needs.

    Args:
        takes: how often each is played.
        seconds: length of each sound.

    Returns:
        The rows, and what was played, by which each is split: a held-out combination is held out in all its takes.
    """
    from datasets import Dataset, Features, List, Value

    rows, keys = [], []
    for number, note in enumerate(NOTES):
        for octave in OCTAVES:
            for kind in CHORDS:
                for timbre in TIMBRES:
                    text = f"{note} {kind}, octave {octave}, {timbre}"
                    for take in range(takes):
                        sound = _play(generator_of(f"{text} {take}"), 12 * octave + number, kind, timbre, seconds)
                        audio = {"array": sound, "sampling_rate": SAMPLING_RATE}
                        row = {"audio": audio, "text": text, "note": note}
                        rows.append(row | {"kind": kind, "octave": octave, "timbre": timbre})
                        keys.append(text)
    audio = {"array": List(Value("float32")), "sampling_rate": Value("int32")}
    texts: dict[str, Any] = {column: Value("string") for column in ("text", "note", "kind", "timbre")}
    return Dataset.from_list(rows, features=Features({"audio": audio, **texts, "octave": Value("int32")})), keys


def _play(random: np.random.Generator, semitone: int, kind: str, timbre: str, seconds: float) -> np.ndarray:
    """Samples in [-1, 1]. Semitone 57 is the A of 440 Hz."""
    time = np.arange(round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    tuning = random.normal(0, 0.1)  # in semitones
    sound = np.zeros_like(time)
    for interval in CHORDS[kind]:
        pitch = 440 * 2 ** ((semitone + interval + tuning - 57) / 12)
        for overtone, loudness in enumerate(TIMBRES[timbre], 1):
            if overtone * pitch < SAMPLING_RATE / 2:
                sound += loudness * np.sin(2 * np.pi * (overtone * pitch * time + random.uniform()))
    sound *= np.exp(-random.uniform(0, 3) * time) * np.minimum(time / 0.01, 1)
    sound *= random.uniform(0.3, 0.9) / np.abs(sound).max()
    return (sound + random.normal(0, 0.003, len(time))).astype(np.float32)
