"""RWKV-7: a recurrent network whose memory replaces what it holds under a key, and so can track a state.

Peng et al. 2025, "RWKV-7 Goose with Expressive Dynamic State Evolution", https://arxiv.org/abs/2503.14456.

The equations are in layers/rwkv7_mixer.py, layers/delta_rule.py and layers/rwkv_channel_mix.py, the block in
../rwkv.py. The values of the first layer go from block to block beside the residual stream.
"""

from transformers.generation import GenerationMixin

from ..classifiers import QuestionAnsweringHead, SequenceClassificationHead, TokenClassificationHead
from ..heads import CausalLMHead
from ..layers.rwkv7_mixer import Rwkv7TimeMix
from ..layers.rwkv_channel_mix import ChannelMix
from ..rwkv import RwkvBlock, RwkvPreTrainedModel, RwkvTrunk
from .configuration_rwkv7 import ZooRwkv7Config


def make_mixer(
    config: ZooRwkv7Config, layer_idx: int, value_rank: int | None, mixer: type[Rwkv7TimeMix] = Rwkv7TimeMix
) -> Rwkv7TimeMix:
    """The time mixing of a layer; without a value_rank it does not take up the values of the first."""
    return mixer(
        config.hidden_size,
        config.head_size,
        config.decay_rank,
        config.rate_rank,
        config.gate_rank,
        value_rank=value_rank,
        layer_idx=layer_idx,
        num_layers=config.num_hidden_layers,
        rate_limit=config.rate_limit,
    )


def make_channel_mix(config: ZooRwkv7Config, layer_idx: int) -> ChannelMix:
    """The channel mixing of a layer."""
    return ChannelMix(config.hidden_size, config.intermediate_size, layer_idx, config.num_hidden_layers)


class Rwkv7Block(RwkvBlock):
    """The delta rule, and a squared ReLU."""

    def __init__(self, config: ZooRwkv7Config, layer_idx: int) -> None:
        mixer = make_mixer(config, layer_idx, value_rank=config.value_rank if layer_idx else None)
        super().__init__(config, layer_idx, mixer, make_channel_mix(config, layer_idx))


class ZooRwkv7PreTrainedModel(RwkvPreTrainedModel):
    """Base class: what loaders need to know."""

    config_class = ZooRwkv7Config
    config: ZooRwkv7Config
    _no_split_modules = ["Rwkv7Block"]
    _can_record_outputs = {"hidden_states": Rwkv7Block}
    _keep_in_fp32_modules_strict = ["decay.bias", "k_k", "k_a", "r_k"]


class ZooRwkv7Model(RwkvTrunk, ZooRwkv7PreTrainedModel):
    """The stack without a head."""

    num_carried = 1  # the values of the first layer

    def __init__(self, config: ZooRwkv7Config) -> None:
        super().__init__(config, Rwkv7Block)


class ZooRwkv7ForCausalLM(CausalLMHead, ZooRwkv7PreTrainedModel, GenerationMixin):
    """The language model."""

    backbone_class = ZooRwkv7Model


class ZooRwkv7ForSequenceClassification(SequenceClassificationHead, ZooRwkv7PreTrainedModel):
    """A label for the row, read from its last real token."""

    backbone_class = ZooRwkv7Model
    score_has_bias = False


class ZooRwkv7ForTokenClassification(TokenClassificationHead, ZooRwkv7PreTrainedModel):
    """A label for every token."""

    backbone_class = ZooRwkv7Model


class ZooRwkv7ForQuestionAnswering(QuestionAnsweringHead, ZooRwkv7PreTrainedModel):
    """Start and end of an answer in the row."""

    backbone_class = ZooRwkv7Model
