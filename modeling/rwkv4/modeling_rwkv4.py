"""RWKV-4: attention without queries, whose weights decay with distance, so that it runs as a recurrence.

Peng et al. 2023, "RWKV: Reinventing RNNs for the Transformer Era", https://arxiv.org/abs/2305.13048.

The equations are in layers/rwkv4_mixer.py, layers/wkv.py and layers/rwkv_channel_mix.py, the block in ../rwkv.py.
"""

from transformers.generation import GenerationMixin

from ..classifiers import QuestionAnsweringHead, SequenceClassificationHead, TokenClassificationHead
from ..heads import CausalLMHead
from ..layers.rwkv4_mixer import Rwkv4Mixer
from ..layers.rwkv_channel_mix import Rwkv4ChannelMix
from ..rwkv import RwkvBlock, RwkvPreTrainedModel, RwkvTrunk
from .configuration_rwkv4 import ZooRwkv4Config


def make_mixer(config: ZooRwkv4Config, layer_idx: int) -> Rwkv4Mixer:
    """The time mixing of a layer."""
    return Rwkv4Mixer(config.hidden_size, layer_idx, config.num_hidden_layers)


def make_channel_mix(config: ZooRwkv4Config, layer_idx: int) -> Rwkv4ChannelMix:
    """The channel mixing of a layer."""
    return Rwkv4ChannelMix(config.hidden_size, config.intermediate_size, layer_idx, config.num_hidden_layers)


class Rwkv4Block(RwkvBlock):
    """WKV, and a gated squared ReLU."""

    def __init__(self, config: ZooRwkv4Config, layer_idx: int) -> None:
        super().__init__(config, layer_idx, make_mixer(config, layer_idx), make_channel_mix(config, layer_idx))


class ZooRwkv4PreTrainedModel(RwkvPreTrainedModel):
    """Base class: what loaders need to know."""

    config_class = ZooRwkv4Config
    config: ZooRwkv4Config
    _no_split_modules = ["Rwkv4Block"]
    _can_record_outputs = {"hidden_states": Rwkv4Block}
    _keep_in_fp32_modules_strict = ["time_decay", "time_first"]


class ZooRwkv4Model(RwkvTrunk, ZooRwkv4PreTrainedModel):
    """The stack without a head."""

    def __init__(self, config: ZooRwkv4Config) -> None:
        super().__init__(config, Rwkv4Block)


class ZooRwkv4ForCausalLM(CausalLMHead, ZooRwkv4PreTrainedModel, GenerationMixin):
    """The language model."""

    backbone_class = ZooRwkv4Model


class ZooRwkv4ForSequenceClassification(SequenceClassificationHead, ZooRwkv4PreTrainedModel):
    """A label for the row, read from its last real token."""

    backbone_class = ZooRwkv4Model
    score_has_bias = False


class ZooRwkv4ForTokenClassification(TokenClassificationHead, ZooRwkv4PreTrainedModel):
    """A label for every token."""

    backbone_class = ZooRwkv4Model


class ZooRwkv4ForQuestionAnswering(QuestionAnsweringHead, ZooRwkv4PreTrainedModel):
    """Start and end of an answer in the row."""

    backbone_class = ZooRwkv4Model
