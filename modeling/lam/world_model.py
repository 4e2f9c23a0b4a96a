"""What would happen: a model of the agent's own next state, in which a search can try acts without a language model.

    s_0 = N(W_0 [h; g])
    s'  = N(s + MLP [s; e_a]),   r = w_r . s',   done = sigmoid(w_d . s')
    pi(a | s) = softmax_a((W s) . e_a / sqrt(E)),   v(s) = w_v . s

The vector of an act e_a is the tool's own (tool_pointer.py), or a learned one for think, ask and finish. Learnt from
searches as MuZero is (Schrittwieser et al. 2019, https://arxiv.org/abs/1911.08265): unrolled over the acts that were
taken, cross-entropy to the shares of visits, squared errors of value and reward, and cross-entropy of the end.

Shapes: B batch, A acts, K steps, D hidden size, L latent_dim, E tool_dim.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .tool_pointer import NEVER


class Foreseen(NamedTuple):
    """One step of the world model: state (B, L), reward (B), score of the end (B)."""

    state: Tensor
    reward: Tensor
    done_logits: Tensor


class WorldModel(nn.Module):
    """Dynamics, reward, end, policy and value of latent states.

    Args:
        state_size: of what a state starts from, D and what else is given.
        latent_dim: L.
        tool_dim: E.
    """

    def __init__(self, state_size: int, latent_dim: int, tool_dim: int) -> None:
        super().__init__()
        self.from_state = nn.Linear(state_size, latent_dim)
        self.up = nn.Linear(latent_dim + tool_dim, 2 * latent_dim)
        self.down = nn.Linear(2 * latent_dim, latent_dim)
        self.norm = nn.LayerNorm(latent_dim)
        self.outcome = nn.Linear(latent_dim, 2)
        self.act_query = nn.Linear(latent_dim, tool_dim, bias=False)
        self.value = nn.Linear(latent_dim, 1)
        self.other_acts = nn.Embedding(3, tool_dim)  # think, ask, finish

    def start(self, state: Tensor) -> Tensor:
        """The latent (B, L) of what is known of the present."""
        return self.norm(self.from_state(state))

    def acts(self, tools: Tensor, tools_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Vectors of all acts (B, A, E) and which exist (B, A): the tools (B, N, E), then think, ask and finish."""
        rows = len(tools)
        others = self.other_acts.weight.expand(rows, -1, -1)
        if tools_mask is None:
            tools_mask = tools.new_ones(tools.shape[:2])
        exists = torch.cat((tools_mask.bool(), tools_mask.new_ones(rows, len(self.other_acts.weight)).bool()), dim=1)
        return torch.cat((tools, others.to(tools.dtype)), dim=1), exists

    def forward(self, latent: Tensor, act: Tensor) -> Foreseen:
        """latent (B, L) and the vector of an act (B, E) -> what follows."""
        x = F.silu(self.up(torch.cat((latent, act), dim=-1)))
        latent = self.norm(latent + self.down(x))
        reward, done = self.outcome(latent).unbind(-1)
        return Foreseen(latent, reward, done)

    def judge(self, latent: Tensor, acts: Tensor, exists: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of acts (B, A) and value (B) of a latent (B, L)."""
        scores = (acts @ self.act_query(latent)[..., None]).squeeze(-1) * acts.shape[-1] ** -0.5
        return scores.masked_fill(~exists, NEVER), self.value(latent).squeeze(-1)

    def unrolled_loss(
        self,
        latent: Tensor,
        acts: Tensor,
        exists: Tensor,
        taken: Tensor,
        visits: Tensor,
        values: Tensor,
        rewards: Tensor,
        done: Tensor,
    ) -> Tensor:
        """How far the model is from what a search found, mean over rows and steps.

            L = sum_k CE(pi(s_k), visits_k) + (v(s_k) - z_k)^2 / 4 + [k > 0] (r_k - u_k)^2 + [k > 0] BCE(done_k)

        Each step counts until the episode has ended; gradients into s_k are halved at each step, as in the paper.

        Args:
            latent: (B, L), s_0.
            acts, exists: see `acts`.
            taken: (B, K), numbers of acts.
            visits: (B, K + 1, A), shares, or all 0 where there was no search.
            values: (B, K + 1), what the search made of the states.
            rewards, done: (B, K).
        """
        rows = torch.arange(len(latent), device=latent.device)
        alive = torch.ones_like(values[:, 0])
        total, count = latent.new_zeros(()), latent.new_zeros(())
        for k in range(values.shape[1]):
            step = torch.zeros_like(alive)
            if k:
                latent, reward, ends = self((latent + latent.detach()) / 2, acts[rows, taken[:, k - 1]])
                target = done[:, k - 1].to(ends.dtype)
                step = (reward - rewards[:, k - 1]).square()
                step = step + F.binary_cross_entropy_with_logits(ends, target, reduction="none")
                total, count = total + (step * alive).sum(), count + alive.sum()
                alive = alive * (1 - target)
            scores, value = self.judge(latent, acts, exists)
            step = -(visits[:, k] * scores.log_softmax(-1)).sum(-1) + (value - values[:, k]).square() / 4
            total, count = total + (step * alive).sum(), count + alive.sum() * (k == 0)
        return total / count.clamp_min(1)
