"""What turns text, images and episodes into the one sequence that `zoo_gato` reads, and its action tokens back.

Reed et al. 2022, https://arxiv.org/abs/2205.06175, section 2.1. Continuous values of observations are companded,

    F(x) = sgn(x) log(|x| mu + 1) / log(M mu + 1),   mu = 100, M = 256,

clipped to [-1, 1] and cut into bins; continuous actions are in [-1, 1] as they are. Integers are discrete values.
A timestep is its observations by sorted name, a separator, and its action.

Shapes: B rows, T tokens, P patches, Z side of a patch in pixels.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from transformers import BatchFeature, PreTrainedConfig, PreTrainedTokenizerBase, ProcessorMixin

Piece = dict[str, Any]  # what a part of a sequence is made of: lists of ids, labels and places, arrays of patches
Timestep = tuple[Any, Any]  # an observation, a dictionary of some or one alone, and the action that follows

PROMPT_SHARE = 0.25  # of the sequences that begin with a demonstration
_ACTION, _FIRST_OBSERVED = 1, 2  # local positions; 0 is "in no timestep"


class ZooGatoProcessor(ProcessorMixin):
    """A tokenizer of text, and where the other kinds of values are in the vocabulary.

    Args:
        tokenizer: of text.
        text_vocab_size, num_bins, num_discrete, separator_token_id, image_token_id, patch_size, num_patch_bins: as in
            the model's config.
        mu, limit: mu and M of the companding.
    """

    attributes = ["tokenizer"]
    tokenizer_class = "AutoTokenizer"
    _auto_class = "AutoProcessor"  # this file is saved beside the settings

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | None = None,
        text_vocab_size: int = 32000,
        num_bins: int = 1024,
        num_discrete: int = 1024,
        separator_token_id: int = 34048,
        image_token_id: int = 34049,
        patch_size: int = 16,
        num_patch_bins: int = 128,
        mu: float = 100.0,
        limit: float = 256.0,
        **kwargs: Any,
    ) -> None:
        self.text_vocab_size = text_vocab_size
        self.num_bins = num_bins
        self.num_discrete = num_discrete
        self.separator_token_id = separator_token_id
        self.image_token_id = image_token_id
        self.patch_size = patch_size
        self.num_patch_bins = num_patch_bins
        self.mu = mu
        self.limit = limit
        super().__init__(tokenizer, **kwargs)

    @classmethod
    def from_model_config(cls, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> "ZooGatoProcessor":
        """For a model, with a tokenizer of at most `config.text_vocab_size` ids."""
        names = ("text_vocab_size", "num_bins", "num_discrete", "separator_token_id", "image_token_id")
        names += ("patch_size", "num_patch_bins")
        return cls(tokenizer, **{name: getattr(config, name) for name in names})

    @property
    def model_input_names(self) -> list[str]:
        """What the model takes."""
        return ["input_ids", "attention_mask", "local_positions", "patches", "patch_intervals"]

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        images: Any = None,
        episodes: Sequence[Sequence[Timestep]] | None = None,
        max_length: int | None = None,
    ) -> BatchFeature:
        """A batch of texts, of images with or without their captions, or of episodes; see `batch`.

        Args:
            text: one or several; with images their captions.
            images: one or several.
            episodes: lists of timesteps.
            max_length: tokens beyond it are left out.

        Raises:
            ValueError: none or too much is given, or there are not as many captions as images.
        """
        if (episodes is None) == (text is None and images is None):
            raise ValueError("give either episodes, or text or images or both")
        if episodes is not None:
            return self.batch([self.episode(steps) for steps in episodes], max_length)
        texts = [text] if isinstance(text, str) else text
        if images is None:
            return self.batch([self.text(one) for one in texts], max_length)
        images = images if isinstance(images, (list, tuple)) else [images]
        if texts is None:
            return self.batch([self.image(image) for image in images], max_length)
        if len(texts) != len(images):
            raise ValueError(f"there are {len(texts)} captions of {len(images)} images")
        return self.batch(
            [join(self.image(image), self.text(one)) for image, one in zip(images, texts, strict=True)], max_length
        )

    # parts of sequences

    def text(self, text: str) -> Piece:
        """A text that is to be learnt, with its end where the tokenizer has a token for that."""
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        end = self.tokenizer.eos_token_id
        ids = ids if end is None else [*ids, end]
        return _piece(ids, ids, [0] * len(ids))

    def image(self, image: Any) -> Piece:
        """The patches of an image in raster order; its sides become multiples of the patch size.

        Args:
            image: of PIL, or an array (height, width, 3) of bytes.
        """
        image = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
        side = self.patch_size
        width, height = (max(side, round(length / side) * side) for length in image.size)
        pixels = np.asarray(image.convert("RGB").resize((width, height)), dtype=np.float32)
        pixels = (pixels / 127.5 - 1) / math.sqrt(side)
        rows, columns = height // side, width // side
        patches = pixels.reshape(rows, side, columns, side, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, side, side)
        ends = [
            [*self._interval(row, rows), *self._interval(column, columns)]
            for row in range(rows)
            for column in range(columns)
        ]
        count = rows * columns
        return _piece([self.image_token_id] * count, [-100] * count, [0] * count, patches, np.array(ends))

    def timestep(self, observation: Any, action: Any = None) -> Piece:
        """Observations, a separator, and the action, which alone is to be learnt; without it the timestep is open.

        Args:
            observation: a text, an image, a number or an array of them, or a dictionary of these.
            action: an integer or several, or numbers in [-1, 1].
        """
        is_named = isinstance(observation, Mapping)
        values = [observation[name] for name in sorted(observation)] if is_named else [observation]
        separator = _piece([self.separator_token_id], [-100], [0])
        seen = join(*(self._observed(value) for value in values), separator)
        seen["labels"] = [-100] * len(seen["input_ids"])
        seen["local_positions"] = [_FIRST_OBSERVED + i for i in range(len(seen["input_ids"]))]
        return seen if action is None else join(seen, self.action(action))

    def action(self, action: Any) -> Piece:
        """An action alone, which is to be learnt: an integer or several, or numbers in [-1, 1]."""
        ids = self.encode(action, is_action=True)
        return _piece(ids, ids, [_ACTION] * len(ids))

    def episode(self, steps: Sequence[Timestep]) -> Piece:
        """Timesteps one after the other."""
        return join(*(self.timestep(observation, action) for observation, action in steps))

    def prompted(
        self,
        steps: Sequence[Timestep],
        demonstration: Sequence[Timestep],
        num_steps: int,
        random: np.random.Generator,
    ) -> Piece:
        """An episode, and before a quarter of them part of a demonstration of the same task: its end for one half of
        these, any part of it for the other. What is given is not to be learnt.

        Args:
            steps: of the episode.
            demonstration: another episode.
            num_steps: how much of it.
            random: draws whether, and which.
        """
        if random.random() >= PROMPT_SHARE:
            return self.episode(steps)
        first = max(len(demonstration) - num_steps, 0)
        if random.random() < 0.5:
            first = int(random.integers(first + 1))
        prompt = self.episode(demonstration[first : first + num_steps])
        prompt["labels"] = [-100] * len(prompt["labels"])
        return join(prompt, self.episode(steps))

    def batch(self, pieces: Sequence[Piece], max_length: int | None = None) -> BatchFeature:
        """Sequences as rows, padded on the right: `input_ids`, `attention_mask`, `local_positions` and `labels`
        (B, T), and where there are images `patches` (B, P, 3, Z, Z) and `patch_intervals` (B, P, 4)."""
        longest = max(len(piece["input_ids"]) for piece in pieces)
        length = longest if max_length is None else min(longest, max_length)
        pad = self.tokenizer.pad_token_id if self.tokenizer is not None else None
        fills = {"input_ids": pad or 0, "local_positions": 0, "labels": -100}
        data = {
            name: np.array([(piece[name] + [fill] * length)[:length] for piece in pieces], dtype=np.int64)
            for name, fill in fills.items()
        }
        counts = [min(len(piece["input_ids"]), length) for piece in pieces]
        data["attention_mask"] = (np.arange(length) < np.array(counts)[:, None]).astype(np.int64)
        if most := max(len(piece["patches"]) for piece in pieces):
            side = self.patch_size
            data["patches"] = np.zeros((len(pieces), most, 3, side, side), dtype=np.float32)
            data["patch_intervals"] = np.zeros((len(pieces), most, 4), dtype=np.int64)
            for row, piece in enumerate(pieces):
                if count := len(piece["patches"]):
                    data["patches"][row, :count] = piece["patches"]
                    data["patch_intervals"][row, :count] = piece["patch_intervals"]
        return BatchFeature(data, tensor_type="pt")

    # values and ids

    def encode(self, values: Any, is_action: bool = False) -> list[int]:
        """Ids of numbers in row-major order: integers are discrete values, others go into bins.

        Args:
            values: a number or an array.
            is_action: continuous actions are cut into bins as they are, observations after companding.

        Raises:
            ValueError: a discrete value is out of range, or a continuous one is no number.
        """
        values = np.asarray(values)
        if values.dtype == bool or np.issubdtype(values.dtype, np.integer):
            wrong = values[(values < 0) | (values >= self.num_discrete)]
            if wrong.size:
                raise ValueError(f"discrete values are from 0 to {self.num_discrete - 1}, got {int(wrong.flat[0])}")
            return (values.reshape(-1).astype(np.int64) + self.text_vocab_size + self.num_bins).tolist()
        values = values.reshape(-1).astype(np.float64)
        if np.isnan(values).any():
            raise ValueError(f"value {int(np.isnan(values).argmax())} of {len(values)} is not a number")
        scaled = np.clip(values if is_action else self.compand(values), -1, 1)
        bins = np.minimum((scaled + 1) / 2 * self.num_bins, self.num_bins - 1).astype(np.int64)
        return (bins + self.text_vocab_size).tolist()

    def decode_values(self, ids: Sequence[int], is_action: bool = False) -> np.ndarray:
        """Numbers of ids, all discrete or all continuous; of a bin its centre.

        Raises:
            ValueError: an id is that of no number, or both kinds are mixed.
        """
        ids = np.asarray(ids, dtype=np.int64) - self.text_vocab_size
        if ((ids >= self.num_bins) & (ids < self.num_bins + self.num_discrete)).all():
            return ids - self.num_bins
        if not ((ids >= 0) & (ids < self.num_bins)).all():
            raise ValueError(f"ids {(ids + self.text_vocab_size).tolist()} are not all discrete or all continuous")
        scaled = (ids + 0.5) / self.num_bins * 2 - 1
        return scaled if is_action else self.expand(scaled)

    def compand(self, x: np.ndarray) -> np.ndarray:
        """F(x)."""
        return np.sign(x) * np.log(np.abs(x) * self.mu + 1) / math.log(self.limit * self.mu + 1)

    def expand(self, y: np.ndarray) -> np.ndarray:
        """x of F(x) = y."""
        return np.sign(y) * (np.exp(np.abs(y) * math.log(self.limit * self.mu + 1)) - 1) / self.mu

    def action_ids(self, num_actions: int | None = None) -> range:
        """The ids that an action may have: the first so many discrete values, or without a number all bins."""
        first = self.text_vocab_size
        if num_actions is None:
            return range(first, first + self.num_bins)
        return range(first + self.num_bins, first + self.num_bins + num_actions)

    def _observed(self, value: Any) -> Piece:
        if isinstance(value, str):
            return self.text(value)
        is_image = isinstance(value, np.ndarray) and value.ndim == 3 and value.dtype == np.uint8
        if is_image or isinstance(value, Image.Image):
            return self.image(value)
        ids = self.encode(value)
        return _piece(ids, [-100] * len(ids), [0] * len(ids))

    def _interval(self, index: int, count: int) -> tuple[int, int]:
        """First and last bin of part `index` of `count`."""
        first = index * self.num_patch_bins // count
        return first, max(first, -(-(index + 1) * self.num_patch_bins // count) - 1)


def _piece(
    ids: list[int],
    labels: list[int],
    places: list[int],
    patches: np.ndarray | None = None,
    intervals: np.ndarray | None = None,
) -> Piece:
    return {
        "input_ids": list(ids),
        "labels": list(labels),
        "local_positions": places,
        "patches": [] if patches is None else list(patches),
        "patch_intervals": [] if intervals is None else list(intervals),
    }


def join(*pieces: Piece) -> Piece:
    """Pieces one after the other."""
    return {name: [item for piece in pieces for item in piece[name]] for name in _piece([], [], [])}
