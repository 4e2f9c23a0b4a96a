"""A row of feed-forward networks, of which each token passes through a few.

    y_t = sum over e in S(t) of  g_te FFN_e(x_t)       Shazeer et al. 2017, https://arxiv.org/abs/1701.06538, Eq. (1)

The weights of all experts are one parameter a projection, as transformers stores them, and which function multiplies
by them is a choice of the config (`set_experts_implementation`): "eager", "batched_mm", "grouped_mm", or "zoo_sorted",
which the models here start with.

Shapes: N tokens, D hidden size, F expert's feed-forward size, E experts, k experts a token, S = N k pairs.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, use_experts_implementation

# Up to so many pairs, as in decoding, sorting them costs more than it saves
_FEW_PAIRS = 16


def sort_by_expert(experts: Tensor, num_experts: int) -> tuple[Tensor, list[int]]:
    """Pairs of a token and an expert in the order of the experts.

    Args:
        experts: (N, k) of expert numbers; one beyond the last belongs to another device and comes at the end.

    Returns:
        The order (S) of the pairs, pair p being of token p // k, and how many each expert has.
    """
    flat = experts.reshape(-1)
    counts = torch.bincount(flat, minlength=num_experts)[:num_experts]
    return flat.argsort(stable=True), counts.tolist()


def sorted_experts(module: "Experts", x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
    """Sort the pairs once, multiply expert by expert, add the results to their tokens; what a CPU does fastest.

    Experts without tokens cost nothing. On an accelerator and in a compiled graph, where looking at the counts would
    make the host wait, "grouped_mm" does the work.

    Args:
        x: (N, D).
        experts: (N, k) of expert numbers.
        weights: (N, k), what each output is multiplied by.

    Returns:
        (N, D).
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return ALL_EXPERTS_FUNCTIONS["grouped_mm"](module, x, experts, weights)
    up, down = module.up_weights, module.down_proj
    if 0 < experts.numel() <= _FEW_PAIRS and not torch.is_grad_enabled():
        numbers = experts.tolist()
        if max(map(max, numbers)) < module.num_experts:
            pairs = ((row, e) for row, chosen in zip(x.split(1), numbers, strict=True) for e in chosen)
            y = torch.cat([F.linear(module.activate(F.linear(row, up[e])), down[e]) for row, e in pairs])
            y = y.view(*experts.shape, -1)  # (N, k, D)
            return (weights.to(y.dtype)[:, None] @ y).squeeze(1).to(x.dtype)
    order, counts = sort_by_expert(experts, module.num_experts)
    num_here = sum(counts)
    if not num_here:
        return torch.zeros_like(x)
    tokens = order[:num_here] // experts.shape[-1]
    rows = x.index_select(0, tokens)
    if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        # `unbind` has one gradient for all experts, where indexing would have one of full size for each; and what
        # stands between the products of one expert is small enough to stay in the cache
        trios = zip(rows.split(counts), up.unbind(0), down.unbind(0), strict=True)
        y = torch.cat([F.linear(module.activate(F.linear(r, u)), d) for r, u, d in trios if len(r)])
        y = y * weights.reshape(-1)[order[:num_here], None]
        return torch.zeros_like(x).index_add(0, tokens, y.to(x.dtype))
    # Each product is written where it belongs, which spares copies but is neither differentiated nor cast; views made
    # one by one are 3 % faster here than those of `split` and `unbind`
    y = x.new_empty(len(order), module.hidden_dim)
    y[num_here:] = 0
    stop = 0
    for e, count in enumerate(counts):
        if count:
            start, stop = stop, stop + count
            torch.mm(module.activate(F.linear(rows[start:stop], up[e])), down[e].T, out=y[start:stop])
    y = torch.empty_like(y).index_copy_(0, order, y).view(*experts.shape, -1)
    return torch.bmm(weights.to(x.dtype)[:, None], y).squeeze(1)


ALL_EXPERTS_FUNCTIONS.register("zoo_sorted", sorted_experts)


class Experts(nn.Module):
    """What plain and gated experts share.

    `config` is kept for the choice of function alone, `config._experts_implementation`; no size is read from it.
    `init_scale` is how much smaller than the rest `down_proj` starts.
    """

    init_scale = 1.0

    def __init__(
        self, config: PreTrainedConfig, hidden_size: int, intermediate_size: int, num_experts: int, hidden_act: str
    ) -> None:
        super().__init__()
        self.config = config
        self.num_experts = num_experts
        self.hidden_dim = hidden_size  # the names by which transformers' functions and sharding look
        self.intermediate_dim = intermediate_size
        self.down_proj = nn.Parameter(torch.empty(num_experts, hidden_size, intermediate_size))
        self.act_fn = ACT2FN[hidden_act]

    def forward(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """x (N, D), experts and weights (N, k) -> (N, D); the equation, expert by expert."""
        y = torch.zeros_like(x)
        for e, (up, down) in enumerate(zip(self.up_weights.unbind(0), self.down_proj.unbind(0), strict=True)):
            tokens, choices = torch.where(experts == e)
            if len(tokens):
                out = F.linear(self.activate(F.linear(x[tokens], up)), down) * weights[tokens, choices, None]
                y = y.index_add(0, tokens, out.to(x.dtype))
        return y

    def start(self, std: float) -> None:
        """Fresh weights from N(0, std^2)."""
        init.normal_(self.up_weights, std=std)
        init.normal_(self.down_proj, std=std * self.init_scale)

    def extra_repr(self) -> str:
        """Sizes, for printing a model."""
        return f"{self.num_experts} experts, {self.hidden_dim} -> {self.intermediate_dim} -> {self.hidden_dim}"


@use_experts_implementation(has_gate=False)
class PlainExperts(Experts):
    """FFN_e(x) = W_down,e act(W_up,e x)."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.up_proj = nn.Parameter(torch.empty(self.num_experts, self.intermediate_dim, self.hidden_dim))

    @property
    def up_weights(self) -> Tensor:
        """What x is multiplied by (E, F, D)."""
        return self.up_proj

    def activate(self, x: Tensor) -> Tensor:
        """What stands between the two products: x (n, F) -> (n, F)."""
        return self.act_fn(x)


@use_experts_implementation
class GatedExperts(Experts):
    """FFN_e(x) = W_down,e (act(W_gate,e x) * W_up,e x), gate and up in one parameter, gate first."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.gate_up_proj = nn.Parameter(torch.empty(self.num_experts, 2 * self.intermediate_dim, self.hidden_dim))

    @property
    def up_weights(self) -> Tensor:
        """What x is multiplied by (E, 2 F, D)."""
        return self.gate_up_proj

    def activate(self, x: Tensor) -> Tensor:
        """What stands between the two products: x (n, 2 F), the gate first -> (n, F)."""
        gate, hidden = x.chunk(2, dim=-1)
        gate = self.act_fn(gate)
        return gate * hidden if torch.is_grad_enabled() else gate.mul_(hidden)
