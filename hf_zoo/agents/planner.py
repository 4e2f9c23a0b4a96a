"""How an agent decides: by its heads alone, by options that last, by a search, or by both.

* "react": the likeliest act, anew at each step;
* "hierarchical": an option is followed until the policy ends it, and acts are chosen under it;
* "mcts": a tree search in the model's own world model (`hf_zoo.modeling.lam.search`), without a call of the language
  model;
* "mcts+hierarchical": that search under an option.
"""

from typing import TYPE_CHECKING, Any

from ..errors import unknown_name

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

PLANNERS = ("react", "hierarchical", "mcts", "mcts+hierarchical")


class Planner:
    """Chooses acts from the outputs of a `ZooLamForCausalLM`; the option that is followed lasts from one to the next.

    Args:
        model: the model.
        planner: one of `PLANNERS`; the config's without it.
        seed: of noise in the search; the same seed and inputs give the same acts.
        overrides: of `SearchOptions`, such as `simulations`.

    Raises:
        ValueError: there is no such planner.
    """

    def __init__(self, model: "PreTrainedModel", planner: str | None = None, seed: int = 0, **overrides: Any) -> None:
        self.model, self.seed, self.overrides = model, seed, overrides
        self.planner = model.config.planner if planner is None else planner
        if self.planner not in PLANNERS:
            raise unknown_name("planner", self.planner, PLANNERS, f"It is one of {', '.join(PLANNERS)}.")
        self.begin()

    def begin(self) -> None:
        """A new run: no option is followed, and noise starts anew."""
        import torch

        self.option: Tensor | None = None
        self.generator = torch.Generator().manual_seed(self.seed)

    def choose(self, outputs: Any, tools_mask: "Tensor | None" = None) -> tuple[str, int | None]:
        """The kind of the first row's act, and the number of the tool if it is a call.

        Args:
            outputs: of the model, with `act_positions`.
            tools_mask: (B, N), true on real tools.
        """
        from hf_zoo.modeling.lam.planning import describe_act, plan

        found = plan(
            self.model,
            outputs,
            tools_mask,
            self.option,
            self.generator,
            planner=self.planner,
            **self.overrides,
        )
        self.option = found.option
        return describe_act(int(found.act[0]), 0 if outputs.tool_logits is None else outputs.tool_logits.shape[-1] - 1)
