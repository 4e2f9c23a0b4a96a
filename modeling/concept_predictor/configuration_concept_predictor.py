"""Configuration of next-concept prediction."""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from ..llm.configuration_llm import ZooLlmConfig
from ..parts import PART, part_config


@strict
class ZooConceptPredictorConfig(ZooLlmConfig):
    """The fields of the dense decoder (llm), which reads vectors of sentences here, and those of what it predicts.

    Args:
        concept_head: "regression" of the next vector, diffusion of it in the same stack as its context ("one_tower")
            or in a stack of its own ("two_tower"), or its codes, coarse to fine ("quantised").
        sentence_size: numbers of a sentence's vector; SONAR's have 1,024.
        num_denoiser_layers: of the second tower, which "two_tower" and "quantised" have.
        num_diffusion_steps, noise_schedule: of training; see layers/diffusion.py.
        guidance_probability: how often a row is trained without its context.
        num_codebooks, codebook_size: of "quantised".
        num_sampling_steps, guidance_scale, guidance_rescale, initial_noise, noise_scaling: of generation by
            diffusion: steps, strength of the context, share of the lost spread that is given back, standard deviation
            of what sampling starts from, and what predicted noise is divided by (Ning et al. 2023).
        stop_similarity: cosine to the end of a text, or to the concept before, at which generation stops.
        encoder_config: of what makes vectors of sentences, any model; without it the caller brings vectors.
        decoder_config: of what says vectors in words, any causal language model.
        encoder_pooling: of the encoder's hidden states.
    """

    model_type = "zoo_concept_predictor"
    sub_configs = {"encoder_config": PART, "decoder_config": PART}

    concept_head: Literal["regression", "one_tower", "two_tower", "quantised"] = "two_tower"
    sentence_size: int = 1024
    num_denoiser_layers: int = 13
    num_diffusion_steps: int = 100
    noise_schedule: Literal["cosine", "linear", "sigmoid"] = "cosine"
    guidance_probability: float = 0.15
    num_codebooks: int = 64
    codebook_size: int = 8192
    num_sampling_steps: int = 40
    guidance_scale: float = 3.0
    guidance_rescale: float = 0.7
    initial_noise: float = 0.6
    noise_scaling: float = 1.00045
    stop_similarity: float = 0.9
    encoder_config: dict[str, Any] | PreTrainedConfig | None = None
    decoder_config: dict[str, Any] | PreTrainedConfig | None = None
    encoder_pooling: Literal["mean", "cls", "last"] = "mean"

    def __post_init__(self, **kwargs) -> None:
        for field in ("encoder_config", "decoder_config"):
            if (value := getattr(self, field)) is not None:
                setattr(self, field, part_config(value, field))
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """How the sizes fit together."""
        super().validate_architecture()
        if not 0 <= self.guidance_probability < 1:
            raise ValueError(f"guidance_probability must be from 0 to below 1, got {self.guidance_probability}")
        if self.num_sampling_steps > self.num_diffusion_steps:
            raise ValueError(
                f"num_sampling_steps={self.num_sampling_steps} is more than "
                f"num_diffusion_steps={self.num_diffusion_steps}"
            )
        if self.num_diffusion_steps < 2:
            raise ValueError(f"num_diffusion_steps must be at least 2, got {self.num_diffusion_steps}")
        if self.encoder_config is not None and self.encoder_config.hidden_size != self.sentence_size:
            raise ValueError(
                f"encoder_config has hidden_size={self.encoder_config.hidden_size}, which must be "
                f"sentence_size={self.sentence_size}"
            )
