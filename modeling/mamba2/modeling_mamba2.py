"""Mamba-2: a stack of state spaces with one decay a head, computed as matrix products.

Dao and Gu 2024, https://arxiv.org/abs/2405.21060.

    x <- x + Mixer(RMSNorm(x));  RMSNorm at the end;  the head shares the embedding's weights

The equations of the mixer are in layers/ssd_mixer.py, those of its recurrence in layers/ssd.py.

Shapes: B batch, T tokens, D hidden size.
"""

from transformers.generation import GenerationMixin

from ..classifiers import QuestionAnsweringHead, SequenceClassificationHead, TokenClassificationHead
from ..decoder import DecoderTrunk
from ..heads import CausalLMHead
from ..layers.norm import RMSNorm
from ..layers.ssd_mixer import SSDMixer
from ..recurrent import RecurrentBlock, RecurrentPreTrainedModel
from .configuration_mamba2 import ZooMamba2Config


def make_mixer(config: ZooMamba2Config) -> SSDMixer:
    """The state space of a layer."""
    return SSDMixer(
        config.hidden_size,
        config.num_heads,
        config.head_dim,
        config.state_size,
        config.num_groups,
        config.conv_kernel,
        norm_eps=config.norm_eps,
        bias=config.use_bias,
        conv_bias=config.use_conv_bias,
        dt_limit=config.time_step_limit,
    )


class Mamba2Block(RecurrentBlock):
    """A state space of many heads with norm and residual."""

    def __init__(self, config: ZooMamba2Config, layer_idx: int) -> None:
        super().__init__(make_mixer(config), layer_idx, config.hidden_size, config.norm_eps, config.residual_in_fp32)


class ZooMamba2PreTrainedModel(RecurrentPreTrainedModel):
    """Base class: what loaders need to know."""

    config_class = ZooMamba2Config
    config: ZooMamba2Config
    _no_split_modules = ["Mamba2Block"]
    _can_record_outputs = {"hidden_states": Mamba2Block}
    _keep_in_fp32_modules_strict = ["A_log", "D", "dt_bias"]


class ZooMamba2Model(DecoderTrunk, ZooMamba2PreTrainedModel):
    """The stack without a head."""

    def __init__(self, config: ZooMamba2Config) -> None:
        super().__init__(config, Mamba2Block, RMSNorm(config.hidden_size, config.norm_eps))
        self.post_init()


class ZooMamba2ForCausalLM(CausalLMHead, ZooMamba2PreTrainedModel, GenerationMixin):
    """The language model."""

    backbone_class = ZooMamba2Model


class ZooMamba2ForSequenceClassification(SequenceClassificationHead, ZooMamba2PreTrainedModel):
    """A label for the row, read from its last real token."""

    backbone_class = ZooMamba2Model
    score_has_bias = False


class ZooMamba2ForTokenClassification(TokenClassificationHead, ZooMamba2PreTrainedModel):
    """A label for every token."""

    backbone_class = ZooMamba2Model


class ZooMamba2ForQuestionAnswering(QuestionAnsweringHead, ZooMamba2PreTrainedModel):
    """Start and end of an answer in the row."""

    backbone_class = ZooMamba2Model
