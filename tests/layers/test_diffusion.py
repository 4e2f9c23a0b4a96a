"""Diffusion of vectors: its schedules, its steps, guidance, and sampling that finds what a perfect prediction says."""

import pytest
import torch
from torch.testing import assert_close

from hf_zoo.modeling.layers.diffusion import SCHEDULES, Diffusion, guide, signal_shares

torch.manual_seed(0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_signal_falls_from_almost_one_to_none(schedule):
    shares = signal_shares(100, schedule)
    assert shares.dtype == torch.float64 and shares[0] > 0.98
    assert (shares.diff() < 0).all() and shares[-1] == 0


def without_signal_at_the_end(shares):
    roots = torch.tensor(shares, dtype=torch.float64).sqrt()
    return ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2


def test_the_cosine_schedule_is_its_formula_with_a_rescaled_end():
    steps, bar = 50, []
    for t in range(steps + 1):
        bar.append(torch.cos(torch.tensor((t / steps + 0.008) / 1.008 * torch.pi / 2, dtype=torch.float64)) ** 2)
    shares, product = [], 1.0
    for t in range(steps):
        product *= 1 - min(1 - float(bar[t + 1] / bar[t]), 0.999)
        shares.append(product)
    assert_close(signal_shares(steps, "cosine"), without_signal_at_the_end(shares))


def test_the_linear_schedule_is_that_of_a_thousand_steps_at_any_number():
    """Of 100 steps each adds ten times as much."""
    shares, product = [], 1.0
    for t in range(100):
        product *= 1 - 10 * (1e-4 + (0.02 - 1e-4) * t / 99)
        shares.append(product)
    assert_close(signal_shares(100, "linear"), without_signal_at_the_end(shares))


def test_the_sigmoid_schedule_is_its_formula():
    odds = [t / (50 - t) for t in range(1, 50)]
    shares = [*(1 / (1 + x**1.5) for x in odds), 0.0]
    assert_close(signal_shares(50, "sigmoid"), without_signal_at_the_end(shares), atol=1e-6, rtol=1e-6)


def test_noise_and_clean_vector_are_found_again():
    diffusion = Diffusion(100)
    x, noise = torch.randn(2, 5, 8, dtype=torch.float64)
    steps = torch.tensor([0, 10, 50, 90, 98])
    noised = diffusion.add_noise(x, noise, steps)
    share = diffusion.shares[steps, None]
    assert_close(noised, share.sqrt() * x + (1 - share).sqrt() * noise)
    assert_close(diffusion.noise_in(noised, x, steps), noise)
    assert_close(diffusion.clean_of(noised, noise, steps), x)
    assert_close(diffusion.add_noise(x, noise, torch.full((5,), 99)), noise)
    assert_close(diffusion.add_noise(x, noise, torch.full((5,), -1)), x)


@pytest.mark.parametrize(
    ("count", "steps"),
    [(4, [99, 74, 49, 24]), (100, list(range(99, -1, -1))), (1, [99]), (6, [99, 82, 66, 49, 32, 16])],
)
def test_sampling_visits_the_last_step_first(count, steps):
    assert Diffusion(100).sampling_steps(count) == steps


def test_guidance_is_linear_and_gives_spread_back():
    with_, without = torch.randn(2, 3, 64, dtype=torch.float64)
    assert_close(guide(with_, without, 1.0, 0.7), with_)
    assert_close(guide(with_, without, 3.0, 0.0), without + 3 * (with_ - without))
    assert_close(guide(with_, without, 3.0, 1.0).std(-1), with_.std(-1))
    halfway = guide(with_, without, 3.0, 0.5)
    assert_close(halfway, 0.5 * guide(with_, without, 3.0, 0.0) + 0.5 * guide(with_, without, 3.0, 1.0))
