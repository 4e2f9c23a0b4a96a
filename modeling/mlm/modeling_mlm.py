"""BERT: a transformer encoder that learns by filling in masked tokens.

Devlin et al. 2018, https://arxiv.org/abs/1810.04805; BioBERT (Lee et al. 2019, https://arxiv.org/abs/1901.08746) is
the same model trained on biomedical text, RoBERTa (Liu et al. 2019, https://arxiv.org/abs/1907.11692) the same trained
longer on more, without pairs of sentences; BlockBERT (Qiu et al. 2019, https://arxiv.org/abs/1911.02972) the same with
the attention of layers/block_permuted_attention.py.

    e = LayerNorm(Tok[id] + Pos[i] + Seg[type])
    h = LayerNorm(x + W_o MHA(x));  y = LayerNorm(h + W_2 gelu(W_1 h))          a block
    pooled = tanh(W h_CLS);  scores of a masked token = LayerNorm(gelu(W h)) E^T + b

Block and trunk are in bert.py.
"""

from typing import Any

from torch import Tensor

from ..base_model import ZooPreTrainedModel
from ..bert import BertBlock, BertTrunk, make_attention
from ..classifiers import (
    MultipleChoiceHead,
    QuestionAnsweringHead,
    SequenceClassificationHead,
    TokenClassificationHead,
)
from ..heads import MaskedLMHead, NextSentenceHead, PreTrainingHead
from ..layers.attention import Attention
from ..layers.block_permuted_attention import BlockedRows, BlockPermutedAttention
from ..masks import encoder_mask, find_documents
from .configuration_mlm import ZooMlmConfig


class MlmBlock(BertBlock):
    """BERT's block, with attention through whatever backend is set, or of blocks to blocks."""

    def __init__(self, config: ZooMlmConfig, layer_idx: int) -> None:
        if config.num_attention_blocks == 1:
            attention = make_attention(config, layer_idx)
        else:
            attention = make_attention(config, layer_idx, BlockPermutedAttention, shifts=config.head_shifts)
        super().__init__(config, attention)


class ZooMlmPreTrainedModel(ZooPreTrainedModel):
    """Base class: what the attention backends and loaders need to know."""

    config_class = ZooMlmConfig
    config: ZooMlmConfig
    may_be_missing = ("pooler",)  # a masked LM alone does not train it
    _no_split_modules = ["MlmBlock"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": MlmBlock, "attentions": Attention}


class ZooMlmModel(BertTrunk, ZooMlmPreTrainedModel):
    """The encoder without a head; with `add_pooling_layer=False` without its pooler."""

    block_class = MlmBlock

    def make_mask(
        self,
        x: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        input_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> BlockedRows | Tensor | None:
        """The set backend's mask; for attention of blocks to blocks, where these stand in the batch."""
        if self.config.num_attention_blocks == 1:
            return encoder_mask(self.config, x, attention_mask, position_ids)
        documents = find_documents(x, attention_mask, position_ids)
        return BlockedRows(x.shape[:2], x.device, self.config.num_attention_blocks, documents)


class ZooMlmForMaskedLM(MaskedLMHead, ZooMlmPreTrainedModel):
    """The masked language model."""

    backbone_class = ZooMlmModel
    backbone_arguments = {"add_pooling_layer": False}


class ZooMlmForPreTraining(PreTrainingHead, ZooMlmPreTrainedModel):
    """Masked tokens and sentence pairs, as BERT was trained."""

    backbone_class = ZooMlmModel


class ZooMlmForNextSentencePrediction(NextSentenceHead, ZooMlmPreTrainedModel):
    """Whether the second sentence follows the first."""

    backbone_class = ZooMlmModel


class ZooMlmForSequenceClassification(SequenceClassificationHead, ZooMlmPreTrainedModel):
    """A label for the row, from its pooled [CLS]."""

    backbone_class = ZooMlmModel


class ZooMlmForTokenClassification(TokenClassificationHead, ZooMlmPreTrainedModel):
    """A label for every token."""

    backbone_class = ZooMlmModel
    backbone_arguments = {"add_pooling_layer": False}


class ZooMlmForQuestionAnswering(QuestionAnsweringHead, ZooMlmPreTrainedModel):
    """Start and end of an answer in the row."""

    backbone_class = ZooMlmModel
    backbone_arguments = {"add_pooling_layer": False}


class ZooMlmForMultipleChoice(MultipleChoiceHead, ZooMlmPreTrainedModel):
    """Which of several texts fits best."""

    backbone_class = ZooMlmModel
