"""Mamba: a stack of selective state spaces, whose memory does not grow with the context.

Gu and Dao 2023, https://arxiv.org/abs/2312.00752.

    x <- x + Mixer(RMSNorm(x));  RMSNorm at the end;  the head shares the embedding's weights

The equations of the mixer are in layers/selective_ssm.py, those of its recurrence in layers/selective_scan.py.

Shapes: B batch, T tokens, D hidden size.
"""

from transformers.generation import GenerationMixin

from ..classifiers import QuestionAnsweringHead, SequenceClassificationHead, TokenClassificationHead
from ..decoder import DecoderTrunk
from ..heads import CausalLMHead
from ..layers.norm import RMSNorm
from ..layers.selective_ssm import SelectiveSSM
from ..recurrent import RecurrentBlock, RecurrentPreTrainedModel
from .configuration_mamba import ZooMambaConfig


def make_mixer(config: ZooMambaConfig) -> SelectiveSSM:
    """The selective state space of a layer."""
    return SelectiveSSM(
        config.hidden_size,
        config.state_size,
        config.conv_kernel,
        config.intermediate_size,
        config.time_step_rank,
        bias=config.use_bias,
        conv_bias=config.use_conv_bias,
    )


class MambaBlock(RecurrentBlock):
    """A selective state space with norm and residual."""

    def __init__(self, config: ZooMambaConfig, layer_idx: int) -> None:
        super().__init__(make_mixer(config), layer_idx, config.hidden_size, config.norm_eps, config.residual_in_fp32)


class ZooMambaPreTrainedModel(RecurrentPreTrainedModel):
    """Base class: what loaders need to know."""

    config_class = ZooMambaConfig
    config: ZooMambaConfig
    _no_split_modules = ["MambaBlock"]
    _can_record_outputs = {"hidden_states": MambaBlock}
    _keep_in_fp32_modules_strict = ["A_log", "D"]


class ZooMambaModel(DecoderTrunk, ZooMambaPreTrainedModel):
    """The stack without a head."""

    def __init__(self, config: ZooMambaConfig) -> None:
        super().__init__(config, MambaBlock, RMSNorm(config.hidden_size, config.norm_eps))
        self.post_init()


class ZooMambaForCausalLM(CausalLMHead, ZooMambaPreTrainedModel, GenerationMixin):
    """The language model."""

    backbone_class = ZooMambaModel


class ZooMambaForSequenceClassification(SequenceClassificationHead, ZooMambaPreTrainedModel):
    """A label for the row, read from its last real token."""

    backbone_class = ZooMambaModel
    score_has_bias = False


class ZooMambaForTokenClassification(TokenClassificationHead, ZooMambaPreTrainedModel):
    """A label for every token."""

    backbone_class = ZooMambaModel


class ZooMambaForQuestionAnswering(QuestionAnsweringHead, ZooMambaPreTrainedModel):
    """Start and end of an answer in the row."""

    backbone_class = ZooMambaModel
