"""Integrate-and-fire against the loop over frames, by hand, conservation, gradients, how many tokens are fired."""

import pytest
import torch
from torch.testing import assert_close

from hf_zoo.modeling.layers.integrate_and_fire import fired_tokens, integrate_and_fire, scale_weights


def loop(states, weights, num_tokens, threshold=1.0):
    """One row, frame by frame: a frame fills what is missing, and what it has left begins the next token."""
    tokens, token, missing = [], states[0] * 0, threshold
    for h, a in zip(states, weights, strict=True):
        while a >= missing and len(tokens) < num_tokens:
            tokens.append(token + missing * h)
            a, token, missing = a - missing, h * 0, threshold
        token, missing = token + a * h, missing - a
    tokens.append(token)  # the tail
    tokens += [states[0] * 0] * num_tokens
    return torch.stack(tokens[:num_tokens])


def drawn(rows=3, frames=41, size=4, most=1.0):
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(rows, frames, generator=generator, dtype=torch.float64) * most
    return torch.randn(rows, frames, size, generator=generator, dtype=torch.float64), weights


@pytest.mark.parametrize(("most", "threshold"), [(1.0, 1.0), (0.3, 1.0), (2.7, 1.0), (1.0, 0.8)])
def test_it_is_the_loop_over_frames_with_its_gradients(most, threshold):
    states, weights = drawn(most=most)
    states.requires_grad_(), weights.requires_grad_()
    num_tokens = int(fired_tokens(weights, threshold).max())
    got = integrate_and_fire(states, weights, num_tokens, threshold)
    expected = torch.stack([loop(s, w, num_tokens, threshold) for s, w in zip(states, weights, strict=True)])
    assert_close(got, expected)
    direction = torch.randn_like(got)
    for ours, theirs in zip(
        torch.autograd.grad((got * direction).sum(), (states, weights)),
        torch.autograd.grad((expected * direction).sum(), (states, weights)),
        strict=True,
    ):
        assert_close(ours, theirs)


def test_seven_frames_by_hand():
    weights = torch.tensor([[0.3, 0.5, 0.4, 0.6, 0.2, 0.7, 0.3]])
    states = torch.arange(1.0, 8.0)[None, :, None]
    assert fired_tokens(weights).tolist() == [3]
    assert_close(
        integrate_and_fire(states, weights, 4)[0, :, 0], torch.tensor([1.9, 4.0, 6.3, 0.0]), atol=1e-5, rtol=0
    )


def test_a_quarter_a_frame_fires_the_mean_of_four():
    states, weights = torch.randn(2, 12, 5), torch.full((2, 12), 0.25)
    assert fired_tokens(weights, least_tail=1.0).tolist() == [3, 3]
    assert_close(integrate_and_fire(states, weights, 3), states.unflatten(1, (3, 4)).mean(2), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("threshold", [1.0, 0.7])
def test_no_weight_is_lost(threshold):
    _, weights = drawn(frames=30)
    ones = torch.ones(3, 30, 1, dtype=torch.float64)
    whole = (weights.sum(-1) / threshold).floor()
    used = integrate_and_fire(ones, weights, int(whole.max()) + 1, threshold)[..., 0]
    for row, count in zip(used, whole.long(), strict=True):
        assert_close(row[:count], torch.full_like(row[:count], threshold))
    assert_close(used.sum(-1), weights.sum(-1))


@pytest.mark.parametrize(
    ("total", "least_tail", "expected"), [(2.49, 0.5, 2), (2.5, 0.5, 3), (2.9, 1.0, 2), (3.0, 1.0, 3), (0.1, 0.5, 1)]
)
def test_the_tail_fires_from_its_least_share_on(total, least_tail, expected):
    weights = torch.full((1, 10), total / 10)
    assert fired_tokens(weights, least_tail=least_tail).tolist() == [expected]
    assert fired_tokens(weights * 3, 3.0, least_tail).tolist() == [expected]


def test_padding_has_no_weight():
    states, weights = drawn()
    wide = torch.cat((torch.full((3, 5, 4), 1e3, dtype=torch.float64), states), 1)
    padded = torch.cat((torch.zeros(3, 5, dtype=torch.float64), weights), 1)
    assert_close(integrate_and_fire(wide, padded, 9), integrate_and_fire(states, weights, 9))


def test_scaled_weights_make_as_many_tokens_as_asked_for():
    _, weights = drawn(frames=200)
    counts = torch.tensor([3, 17, 40])
    scaled = scale_weights(weights.float(), counts, 0.9)
    assert_close(scaled.sum(-1), 0.9 * counts)
    assert fired_tokens(scaled, 0.9).tolist() == counts.tolist()


def test_half_precision_sums_in_float32():
    states, weights = torch.ones(1, 3000, 1), torch.full((1, 3000), 0.01)
    assert fired_tokens(weights.float()).tolist() == [30]
    tokens = integrate_and_fire(states.bfloat16(), weights.bfloat16(), 30)
    assert tokens.dtype == torch.bfloat16 and (tokens[:, :29] - 1).abs().max() < 0.02
