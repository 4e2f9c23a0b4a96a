"""Norms, feed-forward networks and losses against their equations."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close
from transformers.loss.loss_utils import ForSequenceClassificationLoss
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from hf_zoo.modeling.layers.mlp import MLP, GatedMLP
from hf_zoo.modeling.layers.norm import NORMS, RMSNorm
from hf_zoo.modeling.losses import classification_loss, z_loss


def test_rms_norm_equals_the_equation():
    norm, x = RMSNorm(6, eps=1e-3).double(), torch.randn(2, 3, 6, dtype=torch.float64)
    torch.nn.init.normal_(norm.weight)
    assert_close(norm(x), x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * norm.weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_equals_upstream(dtype):
    ours, theirs, x = RMSNorm(64), LlamaRMSNorm(64), torch.randn(4, 64) * 30
    torch.nn.init.normal_(ours.weight)
    theirs.load_state_dict(ours.state_dict())
    assert_close(ours.to(dtype)(x.to(dtype)), theirs.to(dtype)(x.to(dtype)))


def test_norm_without_affine_has_no_parameters():
    assert list(NORMS["layer_norm_without_affine"](6, eps=1e-5).parameters()) == []


def test_mlps_equal_their_equations():
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    plain, gated = MLP(6, 10, "gelu", bias=True).double(), GatedMLP(6, 10, "silu").double()
    assert_close(plain(x), plain.down_proj(F.gelu(plain.up_proj(x))))
    assert_close(gated(x), gated.down_proj(F.silu(gated.gate_proj(x)) * gated.up_proj(x)))


def test_z_loss_counts_learnt_tokens_alone():
    logits, labels = torch.randn(2, 4, 9), torch.tensor([[1, 2, -100, 3], [4, -100, -100, 5]])
    normalisers = [torch.logsumexp(logits[b, t], -1) ** 2 for b, t in ((0, 0), (0, 2), (1, 2))]
    assert_close(z_loss(logits, labels, 0.1), 0.1 * sum(normalisers) / 3)


@pytest.mark.parametrize(
    "labels, num_labels",
    [(torch.tensor([0, 2, 1]), 3), (torch.rand(3, 4).round(), 4), (torch.rand(3), 1)],
    ids=["single", "multi", "regression"],
)
def test_classification_loss_equals_upstream_and_divides_by_all_items(labels, num_labels):
    from transformers import PreTrainedConfig

    logits = torch.randn(3, num_labels)
    expected = ForSequenceClassificationLoss(labels, logits, PreTrainedConfig(num_labels=num_labels))
    assert_close(classification_loss(logits, labels), expected)
    parts = [classification_loss(logits[i : i + 1], labels[i : i + 1], None, labels.numel()) for i in range(3)]
    kind = "multi_label_classification" if labels.ndim == 2 else None
    assert_close(sum(parts), classification_loss(logits, labels, kind))
