"""S4: a stack of linear time-invariant state spaces with a nonlinearity between them.

Gu et al. 2021, https://arxiv.org/abs/2111.00396; S4D: Gu et al. 2022, https://arxiv.org/abs/2206.11893.

    x <- x + GLU(W GELU(S4(RMSNorm(x))));  RMSNorm at the end

The equations of the state space are in layers/s4.py.

Shapes: B batch, T tokens, D hidden size.
"""

from functools import partial

from torch import Tensor
from transformers.generation import GenerationMixin

from ..cache import State
from ..classifiers import QuestionAnsweringHead, SequenceClassificationHead, TokenClassificationHead
from ..decoder import DecoderTrunk
from ..heads import CausalLMHead
from ..layers.gaps import across_gaps
from ..layers.norm import RMSNorm
from ..layers.s4 import S4, DiagonalStateSpace, StateSpace
from ..recurrent import RecurrentBlock, RecurrentPreTrainedModel
from .configuration_s4 import ZooS4Config


def make_mixer(config: ZooS4Config) -> S4:
    """The state space of a layer, with what mixes its channels."""
    state_space = StateSpace
    if config.state_space == "diagonal":
        state_space = partial(DiagonalStateSpace, spectrum=config.spectrum)
    state_space = state_space(config.hidden_size, config.state_size, config.dt_min, config.dt_max)
    return S4(state_space, config.hidden_size, config.residual_dropout)


class S4Block(RecurrentBlock):
    """A state space with norm and residual."""

    def __init__(self, config: ZooS4Config, layer_idx: int) -> None:
        super().__init__(make_mixer(config), layer_idx, config.hidden_size, config.norm_eps, residual_in_fp32=False)

    def mix(
        self, x: Tensor, mask: Tensor | None, state: State | None, packed_positions: Tensor | None, keep_state: bool
    ) -> tuple[Tensor, State]:
        """y (B, T, D) and the new state if it is wanted: beside a convolution it is work of its own."""
        return across_gaps(self.mixer, x, mask, state, packed_positions, keep_state)


class ZooS4PreTrainedModel(RecurrentPreTrainedModel):
    """Base class: what loaders need to know."""

    config_class = ZooS4Config
    config: ZooS4Config
    _no_split_modules = ["S4Block"]
    _can_record_outputs = {"hidden_states": S4Block}
    _keep_in_fp32_modules_strict = ["ssm"]


class ZooS4Model(DecoderTrunk, ZooS4PreTrainedModel):
    """The stack without a head."""

    def __init__(self, config: ZooS4Config) -> None:
        super().__init__(config, S4Block, RMSNorm(config.hidden_size, config.norm_eps))
        self.post_init()


class ZooS4ForCausalLM(CausalLMHead, ZooS4PreTrainedModel, GenerationMixin):
    """The language model."""

    backbone_class = ZooS4Model


class ZooS4ForSequenceClassification(SequenceClassificationHead, ZooS4PreTrainedModel):
    """A label for the row, read from its last real token."""

    backbone_class = ZooS4Model
    score_has_bias = False


class ZooS4ForTokenClassification(TokenClassificationHead, ZooS4PreTrainedModel):
    """A label for every token."""

    backbone_class = ZooS4Model


class ZooS4ForQuestionAnswering(QuestionAnsweringHead, ZooS4PreTrainedModel):
    """Start and end of an answer in the row."""

    backbone_class = ZooS4Model
