"""What feeds `zoo_imagebind`: any of images, films, texts, sounds, maps of depth and heat, and what sensors measure.

Images are prepared as for CLIP and sounds by transformers' extractor of log spectra; a film and a sound are cut into
clips that lie evenly over them, whose vectors the model averages.

Shapes: B things, K clips, C channels, F frames of a clip.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image
from transformers import ASTFeatureExtractor, BatchFeature, PreTrainedConfig, PreTrainedTokenizerBase, ProcessorMixin
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

_HOP = 160  # samples between frames of a spectrum
_SPECTRUM = {"mean": -4.268, "std": 9.138 / 2}  # of AudioSet, where the extractor divides by twice the std


class ZooImagebindProcessor(ProcessorMixin):
    """Signals of six kinds, each alone or with others.

    Args:
        image_processor: of images and of the frames of films.
        feature_extractor: of sounds.
        tokenizer: of texts.
        num_frames: of a clip of a film.
        num_clips: of a film or a sound that is longer than one.
        depth_size, thermal_size: height and width of maps.
        imu_length: samples of a series.
    """

    attributes = ["image_processor", "feature_extractor", "tokenizer"]
    image_processor_class = "AutoImageProcessor"
    feature_extractor_class = "AutoFeatureExtractor"
    tokenizer_class = "AutoTokenizer"
    _auto_class = "AutoProcessor"  # this file is saved beside the settings

    def __init__(
        self,
        image_processor: Any = None,
        feature_extractor: Any = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        num_frames: int = 2,
        num_clips: int = 3,
        depth_size: Sequence[int] = (224, 224),
        thermal_size: Sequence[int] = (224, 224),
        imu_length: int = 2000,
        **kwargs: Any,
    ) -> None:
        self.num_frames = num_frames
        self.num_clips = num_clips
        self.depth_size = list(depth_size)
        self.thermal_size = list(thermal_size)
        self.imu_length = imu_length
        super().__init__(image_processor, feature_extractor, tokenizer, **kwargs)

    @classmethod
    def from_model_config(
        cls, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase
    ) -> "ZooImagebindProcessor":
        """For a model's sizes."""
        height, width = config.vision_config.input_shape
        bins, frames = config.audio_config.input_shape
        return cls(
            CLIPImageProcessorPil(size={"shortest_edge": height}, crop_size={"height": height, "width": width}),
            ASTFeatureExtractor(num_mel_bins=bins, max_length=frames, **_SPECTRUM),
            tokenizer,
            config.vision_config.num_frames,
            depth_size=config.depth_config.input_shape,
            thermal_size=config.thermal_config.input_shape,
            imu_length=config.imu_config.input_shape[0],
        )

    @property
    def model_input_names(self) -> list[str]:
        """What the model takes."""
        signals = ("pixel", "audio", "depth", "thermal", "imu")
        return [*(f"{name}_values" for name in signals), "input_ids", "attention_mask"]

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        audio: Any = None,
        videos: Any = None,
        depth: Any = None,
        thermal: Any = None,
        imu: Any = None,
        sampling_rate: int | None = None,
        return_tensors: str | None = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """The model's input, of all that is given.

        Args:
            images: one or several.
            text: one or several; each ends with the end token.
            audio: one wave, or several, as arrays or lists.
            videos: one film as a list of frames, or several; instead of images.
            depth, thermal: one map (height, width) of numbers, or several.
            imu: one row of series (channels, samples), or several.
            sampling_rate: of the waves, for a check.
            return_tensors: "pt", or "np" for arrays.

        Raises:
            ValueError: nothing is given, both images and films are, or the waves are of another sampling rate.
        """
        if images is not None and videos is not None:
            raise ValueError("give images or videos, not both: both are read by the vision tower")
        data: dict[str, Any] = {}
        if images is not None:
            data["pixel_values"] = self.image_processor(images, return_tensors="np")["pixel_values"]
        if videos is not None:
            films = videos if isinstance(videos[0], (list, tuple)) else [videos]
            data["pixel_values"] = np.stack([self._film(film) for film in films])
        if text is not None:
            texts = [text] if isinstance(text, str) else list(text)
            texts = [one + self.tokenizer.eos_token for one in texts]
            options = {"padding": True, "padding_side": "right", "return_tensors": "np", "add_special_tokens": False}
            tokens = self.tokenizer(texts, **options)
            data |= {name: tokens[name] for name in ("input_ids", "attention_mask")}
        if audio is not None:
            waves = audio if np.ndim(audio[0]) else [audio]
            data["audio_values"] = np.stack([self._sound(np.asarray(wave), sampling_rate) for wave in waves])
        for name, values, size in (("depth", depth, self.depth_size), ("thermal", thermal, self.thermal_size)):
            if values is not None:
                data[f"{name}_values"] = np.stack([_resized(one, size) for one in _several(values, 2)])
        if imu is not None:
            data["imu_values"] = np.stack([self._series(one) for one in _several(imu, 2)])
        if not data:
            raise ValueError("give at least one of images, text, audio, videos, depth, thermal and imu")
        return BatchFeature(data, tensor_type=return_tensors)

    def _film(self, frames: Sequence[Any]) -> np.ndarray:
        """Frames -> (K, C, F, height, width)."""
        clips = []
        for start, end in _stretches(len(frames), self.num_clips):
            places = np.linspace(start, end - 1, self.num_frames).round().astype(int)
            pixels = self.image_processor([frames[i] for i in places], return_tensors="np")["pixel_values"]
            clips.append(np.moveaxis(pixels, 0, 1))
        return np.stack(clips)

    def _sound(self, wave: np.ndarray, sampling_rate: int | None) -> np.ndarray:
        """Samples -> (K, 1, bins, frames); one clip is read K times where the wave is no longer than that."""
        extractor = self.feature_extractor
        length = extractor.max_length * _HOP
        last = max(len(wave) - length, 0)
        starts = np.linspace(0, last, self.num_clips).round().astype(int)
        rate = extractor.sampling_rate if sampling_rate is None else sampling_rate
        clips = [wave[start : start + length].astype(np.float32) for start in starts]
        spectra = extractor(clips, sampling_rate=rate, return_tensors="np")["input_values"]
        return spectra.transpose(0, 2, 1)[:, None].astype(np.float32)

    def _series(self, values: Any) -> np.ndarray:
        """(C, samples) -> (C, imu_length), by linear interpolation."""
        values = np.asarray(values, np.float32)
        places = np.linspace(0, values.shape[1] - 1, self.imu_length)
        return np.stack([np.interp(places, np.arange(values.shape[1]), row) for row in values]).astype(np.float32)


def _several(values: Any, ndim: int) -> Sequence[Any]:
    """Values of things, of which there may be one alone."""
    return [values] if np.ndim(values[0]) < ndim else values


def _stretches(length: int, count: int) -> list[tuple[int, int]]:
    """Start and end of as many stretches, which lie evenly over a length and hold one piece at least."""
    edges = np.linspace(0, length, count + 1)
    return [(min(int(a), length - 1), max(int(b), int(a) + 1)) for a, b in pairwise(edges)]


def _resized(values: Any, size: Sequence[int]) -> np.ndarray:
    """A map (height, width) -> (1, *size)."""
    image = Image.fromarray(np.asarray(values, np.float32))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BICUBIC))[None]
