"""What to do next, in two levels: an option, which lasts, and an act under it.

With h the state of the token that decides and g_k a codebook of options (Sutton et al. 1999, "Between MDPs and
semi-MDPs"; the critic of options is Bacon et al. 2016, https://arxiv.org/abs/1609.05140):

    pi_hi(k | h) = softmax(g_k . (W h) / sqrt(G))
    pi_lo(a | h, g) = softmax(MLP [h; g]) over call, think, ask, finish
    beta(h, g) = sigmoid(w . [h; g]),   V(h, g) = v . [h; g]

Shapes: B batch, D hidden size, N options, G subgoal_dim.
"""

import torch
from torch import Tensor, nn

KINDS = ("call", "think", "ask", "finish")


class HierarchicalPolicy(nn.Module):
    """Options, acts, termination and value.

    Args:
        hidden_size: D.
        num_options: N.
        option_size: G.
    """

    def __init__(self, hidden_size: int, num_options: int, option_size: int) -> None:
        super().__init__()
        self.options = nn.Embedding(num_options, option_size)
        self.option_query = nn.Linear(hidden_size, option_size, bias=False)
        self.hidden = nn.Linear(hidden_size + option_size, hidden_size)
        self.kind = nn.Linear(hidden_size, len(KINDS))
        self.ending = nn.Linear(hidden_size + option_size, 1)
        self.value = nn.Linear(hidden_size + option_size, 1)

    def option_logits(self, state: Tensor) -> Tensor:
        """pi_hi: state (B, D) -> (B, N)."""
        return self.option_query(state) @ self.options.weight.T * self.options.embedding_dim**-0.5

    def forward(self, state: Tensor, option: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """state (B, D) and option (B) -> scores of acts (B, 4), of ending the option (B), and the value (B)."""
        x = torch.cat((state, self.options(option)), dim=-1)
        kinds = self.kind(nn.functional.silu(self.hidden(x)))
        return kinds, self.ending(x).squeeze(-1), self.value(x).squeeze(-1)

    @torch.no_grad()
    def next_option(self, state: Tensor, current: Tensor | None = None) -> Tensor:
        """The option that goes on, or where it ends (beta > 1/2) or none is given the best new one: (B)."""
        best = self.option_logits(state).argmax(-1)
        if current is None:
            return best
        _, ending, _ = self(state, current)
        return torch.where(ending > 0, best, current)


def act_prior(kind_logits: Tensor, tool_logits: Tensor | None) -> Tensor:
    """log pi over all acts (B, A): a call is the pointer's tool, and NO_TOOL falls to the other three.

    log p(tool j) = log pi(call) + log P(j | some tool),   log p(other) = log pi(other)
    """
    kinds = kind_logits.float().log_softmax(-1)
    others = kinds[:, 1:]
    if tool_logits is None or tool_logits.shape[-1] == 1:
        return others.log_softmax(-1)
    tools = tool_logits[:, :-1].float().log_softmax(-1)
    return torch.cat((kinds[:, :1] + tools, others), dim=-1)


def option_critic_loss(
    log_act: Tensor, ending: Tensor, advantage: Tensor, option_advantage: Tensor, deliberation_cost: float = 0.01
) -> Tensor:
    """Policy gradients for acts and for the ends of options (Bacon et al. 2016, theorems 1 and 2).

        L = -log pi_lo(a | h, g) A + beta(h', g) (Q(h', g) - V(h') + cost), advantages without gradient

    Args:
        log_act: (B), of the act that was taken.
        ending: (B), scores of ending the option in the next state.
        advantage: (B), return minus V(h, g).
        option_advantage: (B), Q(h', g) - V(h').
    """
    stay = (option_advantage + deliberation_cost).detach()
    return (-log_act * advantage.detach() + ending.sigmoid() * stay).mean()
