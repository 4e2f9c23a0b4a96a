"""Structured state spaces (S4, S4D): linear, time-invariant, trained as a convolution, decoded as a recurrence.

Gu et al. 2021, "Efficiently Modeling Long Sequences with Structured State Spaces", https://arxiv.org/abs/2111.00396;
Gu et al. 2022, "On the Parameterization and Initialization of Diagonal State Space Models" (S4D),
https://arxiv.org/abs/2206.11893. Every channel has a state x of N numbers that one input u drives:

    x' = A x + B u,  y = C x + D u          discretised with a step dt:   x_t = Ā x_{t-1} + B̄ u_t,  y_t = C x_t + D u_t
    y = K * u + D u                         K_l = C Ā^l B̄

A starts as HiPPO-LegS, which makes the state remember the past as coefficients of Legendre polynomials. It is normal
plus low rank, so that in the right basis A = Λ - P P* with Λ diagonal (S4), and Λ alone does nearly as well (S4D).
The basis is complex and comes in conjugate pairs, of which one each is kept: N / 2 complex numbers.

    S4   bilinear    Ā = (1 - dt/2 A)⁻¹ (1 + dt/2 A),  B̄ = (1 - dt/2 A)⁻¹ dt B, the inverse by Woodbury's identity
    S4D  zero-order  Ā = exp(dt Λ),                    B̄ = Λ⁻¹ (Ā - 1) B

The paper finds the kernel of S4 from its generating function. Here it is a product of two matrices, (C Ā^{ic}) for the
blocks and (Ā^j B̄) within one, both by doubling: as exact at N = 64, and on a CPU much faster than the Cauchy sums.

Shapes: B batch, T tokens, H channels, N state size.
"""

import math
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from .documents import Documents


@cache
def hippo_legs(state_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """HiPPO-LegS in the basis where it is diagonal plus low rank -> Λ, P and B, each (N / 2,) complex in double.

    A_nk = -sqrt((2n + 1)(2k + 1)) below the diagonal, -(n + 1) on it; B_n = sqrt(2n + 1). With P_n = sqrt(n + 1/2),
    A + P Pᵀ is -1/2 plus a skew-symmetric matrix, whose eigenvectors are the basis.
    """
    n = torch.arange(state_size, dtype=torch.float64, device="cpu")  # numbers, even where a model is only planned
    P, B = (n + 0.5).sqrt(), (2 * n + 1).sqrt()
    skew = 0.5 * (torch.outer(B, B).triu(1) - torch.outer(B, B).tril(-1))
    frequencies, basis = torch.linalg.eigh(-1j * skew)
    frequencies, basis = frequencies[state_size // 2 :], basis[:, state_size // 2 :].mH  # the positive ones
    return torch.complex(torch.full_like(frequencies, -0.5), frequencies), basis @ (P + 0j), basis @ (B + 0j)


def long_convolution(u: Tensor, kernel: Tensor) -> Tensor:
    """u (B, T, H) with kernel (H, T), causal, by FFT in O(T log T) -> (B, T, H)."""
    T = u.shape[1]
    if not u.numel():  # torch's FFT refuses an empty batch
        return u
    size = 2 * T  # room for what would wrap around
    spectrum = torch.fft.rfft(u.mT, n=size) * torch.fft.rfft(kernel, n=size)
    return torch.fft.irfft(spectrum, n=size)[..., :T].mT


def powers(A: Tensor, B: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(B, A B, A² B, ...) side by side (H, N, count) and A^count, for count a power of two, in log2(count) products.

    Args:
        A: (H, N, N).
        B: (H, N, 1), or (batch, H, N, 1).
    """
    while B.shape[-1] < count:
        B = torch.cat((B, A @ B), dim=-1)
        A = A @ A
    return B, A


def _exact(x: Tensor) -> Tensor:
    """In at least float32, for a parameter may have been cast to half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _complex(x: Tensor) -> Tensor:
    """Pairs of real and imaginary part (..., 2) -> (...)."""
    return torch.view_as_complex(_exact(x).contiguous())


class StateSpace(nn.Module):
    """S4: one state space a channel, diagonal plus low rank, bilinear.

    States are complex (..., H, N / 2). The parameters of a channel: log_dt, Λ = -exp(A_log) + i A_imag, and B, C and P
    as pairs of real and imaginary part.

    Args:
        channels: H.
        state_size: N, even.
        dt_min, dt_max: between which the steps start, log-uniform.
    """

    def __init__(self, channels: int, state_size: int = 64, dt_min: float = 1e-3, dt_max: float = 0.1) -> None:
        super().__init__()
        self.dt_min, self.dt_max = dt_min, dt_max
        half = state_size // 2
        self.log_dt = nn.Parameter(torch.empty(channels))
        self.A_log = nn.Parameter(torch.empty(channels, half))
        self.A_imag = nn.Parameter(torch.empty(channels, half))
        self.B = nn.Parameter(torch.empty(channels, half, 2))
        self.C = nn.Parameter(torch.empty(channels, half, 2))
        self.P = nn.Parameter(torch.empty(channels, half, 2))
        self.D = nn.Parameter(torch.empty(channels))
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """HiPPO-LegS for every channel, steps log-uniform, C and D normal."""
        Λ, P, B = self.start()
        init.copy_(self.A_log, (-Λ.real).log().expand_as(self.A_log))
        init.copy_(self.A_imag, Λ.imag.expand_as(self.A_imag))
        init.copy_(self.B, torch.view_as_real(B).expand_as(self.B))
        if hasattr(self, "P"):
            init.copy_(self.P, torch.view_as_real(P).expand_as(self.P))
        uniform = torch.rand_like(self.log_dt, dtype=torch.float32)
        init.copy_(self.log_dt, math.log(self.dt_min) + uniform * math.log(self.dt_max / self.dt_min))
        init.normal_(self.C, std=0.5**0.5)
        init.normal_(self.D)

    def start(self) -> tuple[Tensor, Tensor, Tensor]:
        """Λ, P and B at the start, each (N / 2,) complex."""
        return tuple(z.to(self.A_log.device) for z in hippo_legs(2 * self.A_log.shape[1]))

    def _continuous(self) -> tuple[Tensor, Tensor, Tensor]:
        """dt (H, 1), Λ and B (H, N / 2)."""
        Λ = torch.complex(-_exact(self.A_log).exp(), _exact(self.A_imag))
        return _exact(self.log_dt).exp()[:, None], Λ, _complex(self.B)

    def step(self, x: Tensor, u: Tensor) -> Tensor:
        """State x (..., H, N / 2) and input u (..., H) -> the next state.

        P* x sums over both of each pair, which makes it twice the real part.
        """
        dt, Λ, B = self._continuous()
        P = _complex(self.P)
        inverse = 1 / (1 - dt / 2 * Λ)  # of the diagonal part
        low_rank = 2 * (P.conj() * x).real.sum(-1, keepdim=True)
        x = inverse * ((1 + dt / 2 * Λ) * x - dt / 2 * P * low_rank + dt * B * u[..., None])
        scale = 1 / (2 / dt + 2 * (P.abs().square() * inverse).real.sum(-1, keepdim=True))
        return x - inverse * P * scale * 2 * (P.conj() * x).real.sum(-1, keepdim=True)

    def read(self, x: Tensor) -> Tensor:
        """State x (..., H, N / 2) -> C x (..., H)."""
        return 2 * (_complex(self.C) * x).real.sum(-1)

    def system(self) -> tuple[Tensor, Tensor, Tensor]:
        """Ā (H, N, N), B̄ (H, N, 1) and C (H, 1, N) on states written as N real numbers, real and imaginary in turn."""
        H, half = self.A_log.shape
        zero = torch.zeros_like(_exact(self.log_dt))
        unit = torch.eye(2 * half, dtype=zero.dtype, device=zero.device)
        states = _complex(unit.unflatten(1, (half, 2)))[:, None].expand(-1, H, -1)  # (N, H, N / 2)
        A = torch.view_as_real(self.step(states, zero)).flatten(-2).permute(1, 2, 0)
        B = torch.view_as_real(self.step(torch.zeros_like(states[0]), zero + 1)).flatten(-2)[..., None]
        return A, B, self.read(states).mT[:, None]

    def kernel(self, num_tokens: int) -> Tensor:
        """K_l = C Ā^l B̄ for l < T -> (H, T)."""
        A, B, C = self.system()
        block = _block_size(num_tokens)
        within, A = powers(A, B, block)
        blocks = 2 ** math.ceil(math.log2(-(-num_tokens // block)))
        before, _ = powers(A.mT, C.mT, blocks)
        return (before.mT @ within).flatten(1)[:, :num_tokens]

    def carry(self, u: Tensor, state: Tensor | None) -> Tensor:
        """Inputs u (B, T, H) and the state before them -> the state after them, (B, H, N / 2) complex."""
        A, B, _ = self.system()
        block = _block_size(u.shape[1])
        rest = u.shape[1] % block
        if state is None:
            state = _complex(u.new_zeros(len(u), *self.C.shape))
        for t in range(rest):
            state = self.step(state, u[:, t])
        x = torch.view_as_real(state).flatten(-2)[..., None]  # (B, H, N, 1)
        within, A = powers(A, B, block)
        for part in u[:, rest:].split(block, dim=1) if u.shape[1] > rest else ():
            x = A @ x + within @ part.flip(1).permute(0, 2, 1)[..., None]
        return _complex(x[..., 0].unflatten(-1, (-1, 2)))

    def recall(self, state: Tensor, num_tokens: int) -> Tensor:
        """What a state (B, H, N / 2) adds to the outputs of the next tokens: C Ā^{l + 1} x -> (B, T, H)."""
        A, _, C = self.system()
        block = _block_size(num_tokens)
        x = A @ torch.view_as_real(state).flatten(-2)[..., None]
        within, A = powers(A, x, block)  # (B, H, N, block)
        before, _ = powers(A.mT, C.mT, 2 ** math.ceil(math.log2(-(-num_tokens // block))))
        return (before.mT @ within).flatten(2)[..., :num_tokens].mT


class DiagonalStateSpace(StateSpace):
    """S4D: diagonal, zero-order hold.

    Args:
        channels: H.
        state_size: N, even.
        dt_min, dt_max: between which the steps start, log-uniform.
        spectrum: Λ at the start: "legs" that of HiPPO-LegS, "lin" -1/2 + iπn, "inv" -1/2 + i N/π (N / (2n + 1) - 1).
    """

    def __init__(
        self,
        channels: int,
        state_size: int = 64,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        spectrum: str = "legs",
    ) -> None:
        self.spectrum = spectrum
        super().__init__(channels, state_size, dt_min, dt_max)
        del self.P

    def start(self) -> tuple[Tensor, Tensor, Tensor]:
        """Λ, P and B at the start, each (N / 2,) complex."""
        Λ, P, B = super().start()
        if self.spectrum == "legs":
            return Λ, P, B
        N, n = 2 * len(Λ), torch.arange(len(Λ), dtype=torch.float64, device=Λ.device)
        frequencies = math.pi * n if self.spectrum == "lin" else N / math.pi * (N / (2 * n + 1) - 1)
        return torch.complex(torch.full_like(n, -0.5), frequencies), P, torch.ones_like(B)

    def _discrete(self) -> tuple[Tensor, Tensor, Tensor]:
        """dt Λ, Ā and B̄, each (H, N / 2)."""
        dt, Λ, B = self._continuous()
        A = torch.exp(dt * Λ)
        return dt * Λ, A, (A - 1) / Λ * B

    def step(self, x: Tensor, u: Tensor) -> Tensor:
        """State x (..., H, N / 2) and input u (..., H) -> the next state."""
        _, A, B = self._discrete()
        return A * x + B * u[..., None]

    def kernel(self, num_tokens: int) -> Tensor:
        """K_l = C Ā^l B̄ for l < T -> (H, T); powers of a diagonal matrix need no products."""
        log_A, _, B = self._discrete()
        block = _block_size(num_tokens)
        within, before = (
            torch.exp(log_A[..., None] * torch.arange(0, stop, step, device=log_A.device))
            for stop, step in ((block, 1), (num_tokens, block))
        )
        weights = (_complex(self.C) * B)[..., None]  # (H, N / 2, 1)
        return 2 * ((weights * before).mT @ within).real.flatten(1)[:, :num_tokens]


def _block_size(num_tokens: int) -> int:
    """A power of two near the square root, where both factors of a kernel are about as long."""
    return 2 ** round(math.log2(num_tokens) / 2)


class S4(nn.Module):
    """The mixer: a state space a channel, GELU, and a gated linear layer that mixes the channels.

    Args:
        state_space: `StateSpace` or `DiagonalStateSpace` of `hidden_size` channels.
        hidden_size: D.
        dropout: after GELU.
    """

    def __init__(self, state_space: StateSpace, hidden_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.ssm = state_space
        self.dropout = dropout
        self.out_proj = nn.Linear(hidden_size, 2 * hidden_size)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        state: tuple[None, Tensor] | None = None,
        position_ids: Tensor | None = None,
        keep_state: bool = True,
    ) -> tuple[Tensor, tuple[None, Tensor | None]]:
        """x (B, T, D), mask (B, T) with 1 on real tokens -> y (B, T, D) and the new state.

        Args:
            x: (B, T, D).
            mask: (B, T). Padding comes after the last token of a row, or before the first if there is no state.
            state: (None, (B, D, N / 2, 2)) left by earlier tokens.
            position_ids: (B, T), only if a row holds several documents: 0 on a real token starts a new one.
            keep_state: whether the new state is wanted. A convolution does not give it by the way.
        """
        dtype = torch.promote_types(x.dtype, torch.float32)
        u = x.to(dtype)
        if mask is not None:
            u = u * mask[..., None].to(dtype)
        past = None if state is None else _complex(state[1].to(dtype))
        if x.shape[1] == 1:
            past = _complex(u.new_zeros(len(u), *self.ssm.C.shape)) if past is None else past
            real = None if mask is None else mask[:, :, None].bool()
            new = self.ssm.step(past, u[:, 0])
            y, past = self.ssm.read(new)[:, None], new if real is None else torch.where(real, new, past)
        elif position_ids is not None:
            y, past = self._documents(u, position_ids, keep_state)
        else:
            y, past = self._convolve(u, mask, past, keep_state)
        y = F.gelu(torch.addcmul(y, u, self.ssm.D.to(dtype))).to(x.dtype)
        y = F.glu(self.out_proj(F.dropout(y, self.dropout, self.training)))
        return y, (None, None if past is None else torch.view_as_real(past))

    def _convolve(self, u: Tensor, mask: Tensor | None, past: Tensor | None, keep_state: bool):
        """u (B, T, D), zero on padding -> y without its skip connection, and the last state if it is wanted."""
        T = u.shape[1]
        y = long_convolution(u, self.ssm.kernel(T).to(u.dtype))
        if past is not None:
            y = y + self.ssm.recall(past, T)
        if not keep_state:
            return y, None
        if mask is None:
            return y, self.ssm.carry(u, past)
        if past is None:  # the last real token goes to the end; zeros before the first leave no trace
            last = (mask.cumsum(1) * mask).argmax(1, keepdim=True)
            from_token = torch.arange(T, device=u.device) - (T - 1 - last)  # (B, T)
            moved = u.gather(1, from_token.clamp_min(0)[..., None].expand_as(u))
            return y, self.ssm.carry(moved * (from_token >= 0)[..., None], None)
        for t in range(T):  # rare: rows of different lengths that go on from a state
            past = torch.where(mask[:, t, None, None].bool(), self.ssm.step(past, u[:, t]), past)
        return y, past

    def _documents(self, u: Tensor, position_ids: Tensor, keep_state: bool):
        """Packed documents, each convolved as a row of its own; the state is that of the last one in each row."""
        documents = Documents(None, position_ids, u.shape[:2])
        y, state = self._convolve(documents.split(u), documents.mask(), None, keep_state)
        return documents.join(y), None if state is None else state[documents.last()]
