"""RWKV-6 "Finch" and RWKV-5 "Eagle": recurrent networks with a matrix memory for each head that decays by channel.

Peng et al. 2024, "Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence",
https://arxiv.org/abs/2404.05892.

The equations are in layers/rwkv6_mixer.py, layers/wkv_matrix.py and layers/rwkv_channel_mix.py, the block in
../rwkv.py. RWKV-5 is RWKV-6 whose shift and decay are the same for all tokens.
"""

from transformers.generation import GenerationMixin

from ..classifiers import QuestionAnsweringHead, SequenceClassificationHead, TokenClassificationHead
from ..heads import CausalLMHead
from ..layers.rwkv6_mixer import Rwkv5Mixer, Rwkv6Mixer
from ..layers.rwkv_channel_mix import GatedChannelMix
from ..rwkv import RwkvBlock, RwkvPreTrainedModel, RwkvTrunk
from .configuration_rwkv6 import ZooRwkv6Config


def make_mixer(config: ZooRwkv6Config, layer_idx: int) -> Rwkv5Mixer:
    """The time mixing of a layer, of RWKV-5 if the decay does not depend on the token."""
    sizes, depth = (config.hidden_size, config.head_size), (layer_idx, config.num_hidden_layers)
    if config.is_data_dependent:
        return Rwkv6Mixer(*sizes, config.shift_rank, config.decay_rank, *depth)
    return Rwkv5Mixer(*sizes, *depth)


def make_channel_mix(config: ZooRwkv6Config, layer_idx: int) -> GatedChannelMix:
    """The channel mixing of a layer."""
    return GatedChannelMix(config.hidden_size, config.intermediate_size, layer_idx, config.num_hidden_layers)


class Rwkv6Block(RwkvBlock):
    """The matrix memory, and a gated squared ReLU."""

    def __init__(self, config: ZooRwkv6Config, layer_idx: int) -> None:
        super().__init__(config, layer_idx, make_mixer(config, layer_idx), make_channel_mix(config, layer_idx))


class ZooRwkv6PreTrainedModel(RwkvPreTrainedModel):
    """Base class: what loaders need to know."""

    config_class = ZooRwkv6Config
    config: ZooRwkv6Config
    _no_split_modules = ["Rwkv6Block"]
    _can_record_outputs = {"hidden_states": Rwkv6Block}
    _keep_in_fp32_modules_strict = ["time_decay", "time_first"]


class ZooRwkv6Model(RwkvTrunk, ZooRwkv6PreTrainedModel):
    """The stack without a head."""

    def __init__(self, config: ZooRwkv6Config) -> None:
        super().__init__(config, Rwkv6Block)


class ZooRwkv6ForCausalLM(CausalLMHead, ZooRwkv6PreTrainedModel, GenerationMixin):
    """The language model."""

    backbone_class = ZooRwkv6Model


class ZooRwkv6ForSequenceClassification(SequenceClassificationHead, ZooRwkv6PreTrainedModel):
    """A label for the row, read from its last real token."""

    backbone_class = ZooRwkv6Model
    score_has_bias = False


class ZooRwkv6ForTokenClassification(TokenClassificationHead, ZooRwkv6PreTrainedModel):
    """A label for every token."""

    backbone_class = ZooRwkv6Model


class ZooRwkv6ForQuestionAnswering(QuestionAnsweringHead, ZooRwkv6PreTrainedModel):
    """Start and end of an answer in the row."""

    backbone_class = ZooRwkv6Model
