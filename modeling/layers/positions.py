"""What tells an attention layer where a token stands: five ways.

    learned     x + P[p]                                                        a table, and so a hard maximum
    factorised  x + P_1[p // l] + P_2[p % l], a table for each digit of p
    sinusoidal  x + PE[p],  PE[p, 2i] = sin(p w_i),  PE[p, 2i+1] = cos(p w_i),  w_i = 10000^(-2i/D)
                Vaswani et al. 2017, https://arxiv.org/abs/1706.03762
    rotary      pairs (x_i, x_{i+R/2}) of q and k turn by p w_i,  w_i = theta^(-2i/R), on the first R of K dimensions
                Su et al. 2021, https://arxiv.org/abs/2104.09864, in the half-split pairing of transformers
    ALiBi       scores - m_h (i - j),  m_h = 2^(-8h/H)
                Press et al. 2021, https://arxiv.org/abs/2108.12409

Shapes: B batch, T tokens, S keys, H heads, K head size, R rotated dimensions, D hidden size.
"""

import math

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers import initialization as init
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, dynamic_rope_update


class LearnedPositions(nn.Embedding):
    """A table of positions, added to the embeddings."""

    def forward(self, position_ids: Tensor) -> Tensor:
        """position_ids (B, T) -> (B, T, D).

        Raises:
            ValueError: a position lies beyond the table.
        """
        if position_ids.device.type == "cpu" and position_ids.numel() and not torch.compiler.is_compiling():
            last = int(position_ids.max())
            if last >= self.num_embeddings:
                raise ValueError(
                    f"position {last} is beyond max_position_embeddings={self.num_embeddings}: "
                    "shorten the input, or build the model with more positions"
                )
        return super().forward(position_ids)


class FactorisedPositions(nn.Module):
    """Learned positions of several digits, each with a table of its own: row and column of a text written in rows.

    x + Σ_n P_n[digit n of p]                 Child et al. 2019, https://arxiv.org/abs/1904.10509, section 5.3

    Args:
        shape: how many values each digit has, the slowest first, as in (rows, columns, channels).
        hidden_size: D.
    """

    def __init__(self, shape: tuple[int, ...], hidden_size: int) -> None:
        super().__init__()
        self.shape = shape
        self.tables = nn.ModuleList(nn.Embedding(size, hidden_size) for size in shape)

    def forward(self, position_ids: Tensor) -> Tensor:
        """position_ids (B, T) -> (B, T, D).

        Raises:
            ValueError: a position has no such digits.
        """
        if position_ids.device.type == "cpu" and position_ids.numel() and not torch.compiler.is_compiling():
            last, longest = int(position_ids.max()), math.prod(self.shape)
            if last >= longest:
                raise ValueError(
                    f"position {last} is beyond position_shape={self.shape}, which holds {longest}: "
                    "shorten the input, or build the model with a larger shape"
                )
        total = 0
        for table, size in zip(reversed(self.tables), reversed(self.shape), strict=True):
            total = total + table(position_ids % size)
            position_ids = position_ids // size
        return total


class SinusoidalPositions(nn.Module):
    """Sines and cosines of growing wavelength, interleaved, added to the embeddings."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size

    def forward(self, position_ids: Tensor) -> Tensor:
        """position_ids (B, T) -> (B, T, D) in float32."""
        even = torch.arange(0, self.hidden_size, 2, device=position_ids.device, dtype=torch.float32)
        angles = position_ids[..., None] * torch.exp(even * (-math.log(10000.0) / self.hidden_size))
        table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)  # (B, T, D or D + 1)
        return table[..., : self.hidden_size]


class RotaryPositions(nn.Module):
    """Cosines and sines by which q and k turn; every scaling that transformers knows for `rope_parameters`.

    Reads its sizes from the config, and keeps it, because those scalings do.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.config = config
        self.rope_type = config.rope_parameters["rope_type"]
        self.rotary_dim = int(config.head_dim * config.rope_parameters.get("partial_rotary_factor", 1.0))
        self.max_seq_len_cached = self.original_max_seq_len = config.max_position_embeddings
        inv_freq, self.attention_scaling = self.initial_frequencies()
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        self.register_buffer("original_inv_freq", inv_freq.clone(), persistent=False)

    def initialise(self) -> None:
        """Fill the buffers, which no checkpoint holds."""
        inv_freq, _ = self.initial_frequencies()
        init.copy_(self.inv_freq, inv_freq)
        init.copy_(self.original_inv_freq, inv_freq)

    def initial_frequencies(self) -> tuple[Tensor, float]:
        """w_i (R / 2) and the factor that some scalings put on cos and sin."""
        if self.rope_type != "default":
            return ROPE_INIT_FUNCTIONS[self.rope_type](self.config)
        exponents = torch.arange(0, self.rotary_dim, 2, dtype=torch.float32) / self.rotary_dim
        return self.config.rope_parameters["rope_theta"] ** -exponents, 1.0

    @torch.no_grad()
    @dynamic_rope_update
    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """x of any shape, for its dtype; position_ids (B, T) -> cos and sin (B, T, R), as `rotate` wants them."""
        # In float32 throughout: half precision cannot tell positions beyond 2,048 apart.
        angles = position_ids[..., None].float() * self.inv_freq.float()
        cos, sin = angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling
        return torch.cat((cos, cos), dim=-1).to(x.dtype), torch.cat((-sin, sin), dim=-1).to(x.dtype)


def rotary_angles(position_ids: Tensor, rotary_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Positions (B, T) -> cos and sin (B, T, R), as `rotate` wants them, with theta = 10,000 and no scaling."""
    even = torch.arange(0, rotary_dim, 2, device=position_ids.device, dtype=torch.float32)
    angles = position_ids[..., None].float() * 10000.0 ** (-even / rotary_dim)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1).to(dtype), torch.cat((-sin, sin), dim=-1).to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first R dimensions of x (B, H, T, K) by the angles of cos and sin (B, T, R).

    The first half of sin is negated: with it (x_1, x_2) cos + (x_2, x_1) sin is the turn, in three operations.
    """
    rotary_dim = cos.shape[-1]
    if rotary_dim < x.shape[-1]:
        return torch.cat((rotate(x[..., :rotary_dim], cos, sin), x[..., rotary_dim:]), dim=-1)
    return torch.addcmul(x * cos[:, None], x.roll(rotary_dim // 2, dims=-1), sin[:, None])


def alibi_slopes(num_heads: int) -> Tensor:
    """m_h (H). Where H is no power of two, the slopes of the next lower one, then every other slope of the next.

    The order is that of Press et al. and of BLOOM; MPT orders them differently.
    """
    power = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-8 * (h + 1) / power) for h in range(power)]
    between = [2 ** (-4 * (h + 1) / power) for h in range(0, 2 * power, 2)]
    return torch.tensor((slopes + between)[:num_heads])


def alibi_bias(num_heads: int, query_positions: Tensor, key_positions: Tensor) -> Tensor:
    """-m_h (i - j) for positions i (B, T) and j (B, S) -> (B, H, T, S), to be added to the scores."""
    distance = (query_positions[:, :, None] - key_positions[:, None, :])[:, None]  # (B, 1, T, S)
    slopes = alibi_slopes(num_heads).to(distance.device)
    return -slopes[:, None, None] * distance
