"""What is predicted of the next concept: the vector itself, the vector behind noise, or its codes.

Barault et al. 2024, https://arxiv.org/abs/2412.08821, sections 2.3.1 to 2.3.4. For context h_n of the concepts z_<=n:

    regression   || W h_n - z_n+1 ||^2                                     one answer, the mean of all that may follow
    one tower    || W f(x_t, h_<n) - z_n ||^2,  x_t noised, in the trunk's own layers
    two tower    || W d(x_t, t, h_<n) - z_n ||^2,  in layers of its own
    quantised    - log p(c_k | d(sum of the centroids before k, k, h_<n)),  k a code book, drawn anew

The first of them is defined for all concepts but the first, the others for all.

Shapes: B batch, N concepts, S size of a sentence's vector, D hidden size.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.cache_utils import Cache

from ..layers.diffusion import Diffusion, guide
from ..layers.residual_quantiser import ResidualQuantiser
from ..layers.timestep_embedding import TimestepEmbedding
from .configuration_concept_predictor import ZooConceptPredictorConfig
from .denoiser import Denoiser, earlier, with_nothing


@dataclass
class Context:
    """What generation knows of the concepts so far.

    Args:
        hidden: (B, N, D), of the trunk.
        real: (B, N), true on real concepts.
        cache: of the trunk.
    """

    hidden: Tensor
    real: Tensor
    cache: Cache


@dataclass
class Sampling:
    """How a concept is drawn; the first five are those of the config, for diffusion.

    Args:
        temperature: of codes; 0 for the likeliest ones.
        generator: of random numbers; torch's own without it.
    """

    num_sampling_steps: int
    guidance_scale: float
    guidance_rescale: float
    initial_noise: float
    noise_scaling: float
    temperature: float = 0.0
    generator: torch.Generator | None = None

    def normal(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Noise, drawn where the generator lives."""
        device = like.device if self.generator is None else self.generator.device
        return torch.randn(shape, generator=self.generator, device=device).to(like)


class ConceptTrunk(Protocol):
    """What the heads ask of the trunk; see `ZooConceptPredictorModel`."""

    def encode_noised(
        self,
        z: Tensor | None,
        noised: Tensor,
        step: Tensor,
        seen: Tensor,
        real: Tensor,
        past_key_values: Cache | None = None,
    ) -> Tensor:
        """Hidden states (B, N, D) of noised vectors in the layers of their contexts."""


class ConceptHead(nn.Module):
    """What all have in common. Each has two methods:

    `losses(trunk, hidden, z, targets, real)` says how wrong the prediction of each concept is (B, N), from contexts
    `hidden` (B, N, D) of the normalised concepts `z` (B, N, S), what should be predicted in their places, `targets`
    (B, N, S), and which are `real` (B, N). `sample(trunk, context, sampling)` gives the next concept (B, S).
    """

    predicts_first = True

    def __init__(self, config: ZooConceptPredictorConfig) -> None:
        super().__init__()
        self.guidance_probability = config.guidance_probability

    def dropped(self, real: Tensor) -> Tensor | None:
        """Rows (B) that are trained without their context."""
        if not self.training or not self.guidance_probability:
            return None
        return torch.rand(len(real), device=real.device) < self.guidance_probability


class Regression(ConceptHead):
    """The next vector, at once."""

    predicts_first = False

    def __init__(self, config: ZooConceptPredictorConfig) -> None:
        super().__init__(config)
        self.project = nn.Linear(config.hidden_size, config.sentence_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Contexts (B, N, D) -> predictions (B, N, S) of the concepts after them."""
        return self.project(hidden)

    def losses(self, trunk: ConceptTrunk, hidden: Tensor, z: Tensor, targets: Tensor, real: Tensor) -> Tensor:
        """Mean squared errors (B, N); of the first concept there is none."""
        errors = (self(hidden[:, :-1]) - targets[:, 1:]).square().mean(-1)
        return F.pad(errors, (1, 0))

    def sample(self, trunk: ConceptTrunk, context: Context, sampling: Sampling) -> Tensor:
        """The prediction itself."""
        return self(context.hidden[:, -1])


class DiffusionHead(ConceptHead):
    """Predicts the clean vector from a noised one.

    The subclass says in which layers: `clean(trunk, x, step, context, is_guided)` is the vector (B, S) behind x (B, S)
    at a step (B), with its context or, not `is_guided`, without.
    """

    def __init__(self, config: ZooConceptPredictorConfig) -> None:
        super().__init__(config)
        self.size = config.sentence_size
        self.diffusion = Diffusion(config.num_diffusion_steps, config.noise_schedule)
        self.project = nn.Linear(config.hidden_size, config.sentence_size)

    def add_noise(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Targets (B, N, S), noised, and the step (B, N) of each."""
        steps = torch.randint(self.diffusion.num_steps, targets.shape[:2], device=targets.device)
        return self.diffusion.add_noise(targets, torch.randn_like(targets), steps), steps

    def sample(self, trunk: ConceptTrunk, context: Context, sampling: Sampling) -> Tensor:
        """From noise to a concept in `num_sampling_steps` steps."""
        diffusion = self.diffusion
        steps = diffusion.sampling_steps(sampling.num_sampling_steps)
        x = sampling.initial_noise * sampling.normal((len(context.hidden), self.size), context.hidden)
        for number, following in zip(steps, [*steps[1:], -1], strict=True):
            step = torch.full((len(x),), number, device=x.device)
            clean = self.clean(trunk, x, step, context, True)
            if number < diffusion.num_steps - 1:  # where all is noise, the prediction alone knows
                noise = diffusion.noise_in(x, clean, step)
                if sampling.guidance_scale != 1:
                    without = diffusion.noise_in(x, self.clean(trunk, x, step, context, False), step)
                    noise = guide(noise, without, sampling.guidance_scale, sampling.guidance_rescale)
                noise = noise / sampling.noise_scaling
                clean = diffusion.clean_of(x, noise, step)
            else:
                noise = x
            x = diffusion.add_noise(clean, noise, torch.full_like(step, following))
        return x


class OneTower(DiffusionHead):
    """Noised vectors go through the layers of the trunk, beside the clean ones."""

    def __init__(self, config: ZooConceptPredictorConfig) -> None:
        super().__init__(config)
        self.embed_step = TimestepEmbedding(config.hidden_size)

    def losses(self, trunk: ConceptTrunk, hidden: Tensor, z: Tensor, targets: Tensor, real: Tensor) -> Tensor:
        """Mean squared errors (B, N)."""
        noised, steps = self.add_noise(targets)
        seen = earlier(real, self.dropped(real))[..., 1:]
        y = trunk.encode_noised(z, noised, self.embed_step(steps), seen, real)
        return (self.project(y) - targets).square().mean(-1)

    def clean(self, trunk: ConceptTrunk, x: Tensor, step: Tensor, context: Context, is_guided: bool) -> Tensor:
        """The clean vector (B, S)."""
        seen = context.real[:, None] & is_guided
        step = self.embed_step(step[:, None])
        y = trunk.encode_noised(None, x[:, None], step, seen, context.real, context.cache)
        return self.project(y)[:, 0]


class TwoTower(DiffusionHead):
    """Noised vectors go through layers of their own that look at the trunk's output."""

    def __init__(self, config: ZooConceptPredictorConfig) -> None:
        super().__init__(config)
        self.denoiser = Denoiser(config)

    def losses(self, trunk: ConceptTrunk, hidden: Tensor, z: Tensor, targets: Tensor, real: Tensor) -> Tensor:
        """Mean squared errors (B, N)."""
        noised, steps = self.add_noise(targets)
        seen = earlier(real, self.dropped(real))
        y = self.denoiser(noised, steps, with_nothing(hidden), seen)
        return (self.project(y) - targets).square().mean(-1)

    def clean(self, trunk: ConceptTrunk, x: Tensor, step: Tensor, context: Context, is_guided: bool) -> Tensor:
        """The clean vector (B, S)."""
        seen = F.pad(context.real & is_guided, (1, 0), value=True)[:, None]
        y = self.denoiser(x[:, None], step[:, None], with_nothing(context.hidden), seen)
        return self.project(y)[:, 0]


class Quantised(ConceptHead):
    """Codes of the vector, each from what those before it stand for; the model's `fit_space` comes before training."""

    def __init__(self, config: ZooConceptPredictorConfig) -> None:
        super().__init__(config)
        self.quantiser = ResidualQuantiser(config.num_codebooks, config.codebook_size, config.sentence_size)
        self.denoiser = Denoiser(config)
        self.project = nn.Linear(config.hidden_size, config.codebook_size)
        self.book_bias = nn.Parameter(torch.zeros(config.num_codebooks, config.codebook_size))

    def initialise(self) -> None:
        """All codes of a book alike."""
        init.zeros_(self.book_bias)

    def losses(self, trunk: ConceptTrunk, hidden: Tensor, z: Tensor, targets: Tensor, real: Tensor) -> Tensor:
        """Cross-entropies (B, N) of one code of each concept."""
        self._check()
        codes = self.quantiser.encode(targets)
        books = torch.randint(codes.shape[-1], codes.shape[:2], device=codes.device)
        before = torch.arange(codes.shape[-1], device=codes.device) < books[..., None]
        known = (self.quantiser.centroids(codes) * before[..., None]).sum(-2).to(targets.dtype)
        seen = earlier(real, self.dropped(real))
        logits = self.scores(known, books, with_nothing(hidden), seen)
        wanted = codes.gather(-1, books[..., None])[..., 0]
        return F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view(wanted.shape)

    def scores(self, known: Tensor, books: Tensor, context: Tensor, seen: Tensor) -> Tensor:
        """Logits (B, N, V) of the codes of books (B, N), from the sum (B, N, S) of the centroids before."""
        return self.project(self.denoiser(known, books, context, seen)) + self.book_bias[books]

    def _check(self) -> None:
        if not self.quantiser.is_fitted:
            raise ValueError("the code books are empty: call model.fit_space(vectors) with vectors of sentences first")

    def sample(self, trunk: ConceptTrunk, context: Context, sampling: Sampling) -> Tensor:
        """Code by code, coarse to fine."""
        self._check()
        hidden = with_nothing(context.hidden)
        seen = F.pad(context.real, (1, 0), value=True)[:, None]
        nothing = F.pad(torch.zeros_like(context.real), (1, 0), value=True)[:, None]
        known = hidden.new_zeros(len(hidden), 1, self.quantiser.codebooks.shape[-1])
        for number, book in enumerate(self.quantiser.codebooks.to(known.dtype)):
            books = torch.full((len(hidden), 1), number, device=hidden.device)
            logits = self.scores(known, books, hidden, seen)
            if sampling.guidance_scale != 1:
                without = self.scores(known, books, hidden, nothing)
                logits = without + sampling.guidance_scale * (logits - without)
            if sampling.temperature:
                uniform = torch.rand(logits.shape, generator=sampling.generator).to(logits)
                logits = logits / sampling.temperature - torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
            known = known + book[logits.argmax(-1)]
        return known[:, 0]


HEADS = {"regression": Regression, "one_tower": OneTower, "two_tower": TwoTower, "quantised": Quantised}
