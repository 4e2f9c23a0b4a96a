"""What turns sound into what `zoo_beats` reads: log spectra as Kaldi's filter bank has them, normalised.

Windows of 25 ms every 10 ms, without their mean and with high tones raised by 0.97; power on a scale of mel, whose
triangles lie on that scale, too; the logarithm, less its mean over AudioSet and divided by twice its deviation.

Shapes: S frames, M bins.
"""

from typing import Any

import numpy as np
from transformers import BatchFeature, PreTrainedConfig, SequenceFeatureExtractor
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

_FRAME, _HOP, _FFT = 400, 160, 512  # samples at 16 kHz
_LEAST = 1.192092955078125e-07  # what Kaldi takes the logarithm of at least


class ZooBeatsFeatureExtractor(SequenceFeatureExtractor):
    """Waves of any length to spectra.

    Args:
        num_mel_bins: M.
        least_frames: a shorter sound is padded with silence to as many, which make a patch.
        mean, std: over AudioSet, of logarithms.
        sampling_rate: that waves must have.
    """

    _auto_class = "AutoFeatureExtractor"  # this file is saved beside the settings
    model_input_names = ["input_values", "attention_mask"]

    def __init__(
        self,
        num_mel_bins: int = 128,
        least_frames: int = 16,
        mean: float = 15.41663,
        std: float = 6.55582,
        sampling_rate: int = 16_000,
        **kwargs: Any,
    ) -> None:
        kwargs.pop("feature_size", None)
        kwargs.pop("padding_value", None)
        super().__init__(feature_size=num_mel_bins, sampling_rate=sampling_rate, padding_value=0.0, **kwargs)
        self.num_mel_bins = num_mel_bins
        self.least_frames = least_frames
        self.mean = mean
        self.std = std

    @classmethod
    def from_model_config(cls, config: PreTrainedConfig) -> "ZooBeatsFeatureExtractor":
        """For a model's bins and patches."""
        return cls(config.num_mel_bins, config.patch_size)

    def __call__(
        self,
        raw_speech: Any,
        sampling_rate: int | None = None,
        return_tensors: str | None = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """`input_values` (B, S, M) and `attention_mask` (B, S), padded on the right to the longest.

        Args:
            raw_speech: one wave, or several of any length, as arrays, tensors or lists from -1 to 1.
            sampling_rate: of the waves, for a check.
            return_tensors: "pt", or "np" for arrays.

        Raises:
            ValueError: another sampling rate, or something that is no wave.
        """
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(f"sounds must have sampling_rate={self.sampling_rate}, got {sampling_rate}")
        first = raw_speech[0]
        is_batch = bool(np.ndim(first))
        spectra = [self.spectrum(np.asarray(wave, np.float64)) for wave in (raw_speech if is_batch else [raw_speech])]
        longest = max(map(len, spectra))
        values = np.zeros((len(spectra), longest, self.num_mel_bins), np.float32)
        mask = np.zeros((len(spectra), longest), np.int64)
        for row, one in enumerate(spectra):
            values[row, : len(one)] = one
            mask[row, : len(one)] = 1
        return BatchFeature({"input_values": values, "attention_mask": mask}, tensor_type=return_tensors)

    def spectrum(self, wave: np.ndarray) -> np.ndarray:
        """One wave -> (S, M), normalised."""
        if wave.ndim != 1 or not len(wave):
            raise ValueError(f"a sound must be one row of samples, got {wave.shape}")
        least = _FRAME + (self.least_frames - 1) * _HOP
        wave = np.pad(wave, (0, max(least - len(wave), 0)))
        filters = mel_filter_bank(
            num_frequency_bins=_FFT // 2 + 1,
            num_mel_filters=self.num_mel_bins,
            min_frequency=20.0,
            max_frequency=self.sampling_rate / 2,
            sampling_rate=self.sampling_rate,
            norm=None,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )
        logarithms = spectrogram(
            wave * 2**15,  # Kaldi's samples are integers of 16 bits
            window_function(_FRAME, "povey", periodic=False),
            frame_length=_FRAME,
            hop_length=_HOP,
            fft_length=_FFT,
            power=2.0,
            center=False,
            preemphasis=0.97,
            mel_filters=filters,
            log_mel="log",
            mel_floor=_LEAST,
            remove_dc_offset=True,
        ).T
        return (logarithms - self.mean) / (2 * self.std)
