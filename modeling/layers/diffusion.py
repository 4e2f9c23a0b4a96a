"""Diffusion of vectors that keeps their variance, predicted as clean vectors and sampled without new noise.

    x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) e,  e ~ N(0, 1)       Ho et al. 2020, https://arxiv.org/abs/2006.11239
    x_s = sqrt(a_s) x_0 + sqrt(1 - a_s) e'                    Song et al. 2020, https://arxiv.org/abs/2010.02502
    e'  = (x_t - sqrt(a_t) x_0) / sqrt(1 - a_t)               with the x_0 that is predicted at t

The last step has no signal at all, a = 0, so that sampling may start from noise as training did (Lin et al. 2023,
https://arxiv.org/abs/2305.08891); there x_0 is known from the prediction alone.

Shapes: T training steps, any leading shape, S size of a vector.
"""

import math

import torch
from torch import Tensor

SCHEDULES = ("cosine", "linear", "sigmoid")


def signal_shares(num_steps: int, schedule: str) -> Tensor:
    """a_t (T) in float64, falling, and 0 at the last step.

    Args:
        num_steps: T.
        schedule: "cosine" (Nichol and Dhariwal 2021, https://arxiv.org/abs/2102.09672), "linear" in the variance that
            each step adds (Ho et al. 2020), or "sigmoid", a_t = sigmoid(-1.5 logit(t / T)).
    """
    place = torch.arange(num_steps + 1, dtype=torch.float64, device="cpu") / num_steps
    if schedule == "cosine":
        bar = torch.cos((place + 0.008) / 1.008 * math.pi / 2).square()
        shares = (bar[1:] / bar[:-1]).clamp_min(0.001).cumprod(0)
    elif schedule == "linear":
        added = torch.linspace(1e-4, 0.02, num_steps, dtype=torch.float64, device="cpu") * (1000 / num_steps)
        shares = (1 - added).clamp_min(0.001).cumprod(0)
    else:
        shares = torch.sigmoid(-1.5 * torch.logit(place[1:], eps=1e-9))
    roots = shares.sqrt()
    roots = (roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))
    return roots.square()


class Diffusion:
    """Noise for training, and the steps of sampling.

    Args:
        num_steps: T of training.
        schedule: see `signal_shares`.
    """

    def __init__(self, num_steps: int, schedule: str = "cosine") -> None:
        self.num_steps = num_steps
        self.shares = signal_shares(num_steps, schedule)

    def roots(self, steps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(a_t) and sqrt(1 - a_t) (..., 1) of steps (...), in the dtype of a tensor; step -1 is no noise."""
        shares = self.shares.to(steps.device)[steps.clamp_min(0)].masked_fill(steps < 0, 1.0)[..., None]
        return shares.sqrt().to(like.dtype), (1 - shares).sqrt().to(like.dtype)

    def add_noise(self, x: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
        """x and noise (..., S), steps (...) -> x_t (..., S)."""
        signal, rest = self.roots(steps, x)
        return signal * x + rest * noise

    def noise_in(self, x_t: Tensor, clean: Tensor, steps: Tensor) -> Tensor:
        """The noise (..., S) in x_t (..., S), if that is the clean vector."""
        signal, rest = self.roots(steps, x_t)
        return (x_t - signal * clean) / rest.clamp_min(1e-12)

    def clean_of(self, x_t: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
        """The clean vector (..., S) behind x_t (..., S), if that is the noise; not at the last step."""
        signal, rest = self.roots(steps, x_t)
        return (x_t - rest * noise) / signal.clamp_min(1e-12)

    def sampling_steps(self, count: int) -> list[int]:
        """Which steps sampling visits, from the last one down ("trailing")."""
        count = min(count, self.num_steps)
        places = torch.arange(count, 0, -1, dtype=torch.float64, device="cpu") * (self.num_steps / count)
        return (places.round().long() - 1).tolist()


def guide(conditional: Tensor, unconditional: Tensor, scale: float, rescale: float) -> Tensor:
    """Noise (..., S) that a condition asks for more strongly than it does (Ho and Salimans 2022).

    Args:
        conditional, unconditional: noise (..., S) with and without the condition.
        scale: 1 for the conditional noise itself.
        rescale: how far the result gets the standard deviation of the conditional noise back (Lin et al. 2023).
    """
    guided = unconditional + scale * (conditional - unconditional)
    spread = conditional.std(-1, keepdim=True) / guided.std(-1, keepdim=True).clamp_min(1e-12)
    return guided * (rescale * spread + (1 - rescale))
