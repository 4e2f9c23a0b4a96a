"""A model that acts: it reads observations token by token into a cache, and says nothing but actions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .experts import Timestep, make_environment, perform

if TYPE_CHECKING:
    import gymnasium
    from transformers import PreTrainedModel, ProcessorMixin


class Player:
    """Plays one episode after the other with a `zoo_gato` model.

    Args:
        model: with its language-model head.
        processor: what makes tokens of timesteps.
        environment: whose actions are to be chosen.
        max_tokens: how many the model looks back at most, by default its `max_position_embeddings`. When they are
            full, the later half of the timesteps is read anew.
        prompt: timesteps of a demonstration, which every episode begins with.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        processor: "ProcessorMixin",
        environment: "gymnasium.Env",
        max_tokens: int | None = None,
        prompt: Sequence[Timestep] = (),
    ) -> None:
        self.model = model.eval()
        self.processor = processor
        self.max_tokens = max_tokens or model.config.max_position_embeddings
        space = environment.action_space
        self.is_discrete = hasattr(space, "n")
        self.shape = space.shape
        self.num_actions = int(np.prod(self.shape))  # 1 of a discrete one, whose shape is ()
        self.allowed = processor.action_ids(int(space.n) if self.is_discrete else None)
        self.prompt = [processor.timestep(*step) for step in prompt]
        self.reset()

    def reset(self) -> None:
        """Forget the episode."""
        self.cache = None
        self.steps: list[dict[str, Any]] = []  # that were read, the last one with its action
        self.waiting = list(self.prompt)  # that the cache does not hold yet

    def act(self, observation: Any) -> int | np.ndarray:
        """The action that the model finds most likely after an observation.

        Raises:
            ValueError: one timestep is longer than what the model looks back.
        """
        from hf_zoo.tokenization.gato_processor import join

        step = self.processor.timestep(observation)
        length = len(step["input_ids"]) + self.num_actions
        if length > self.max_tokens:
            raise ValueError(f"a timestep has {length} tokens, more than max_tokens={self.max_tokens}")
        new = [*self.waiting, step]
        if self._num_read() + sum(len(piece["input_ids"]) for piece in new) + self.num_actions > self.max_tokens:
            self.cache = None
            room = self.max_tokens // 2
            new = [step]
            for piece in reversed(self.steps):
                if sum(len(one["input_ids"]) for one in (piece, *new)) + self.num_actions > room:
                    break
                new.insert(0, piece)
        ids: list[int] = []
        for _ in range(self.num_actions):
            scores = self._read(join(*new))
            ids.append(self.allowed[int(scores[self.allowed.start : self.allowed.stop].argmax())])
            new = [self._action(ids[-1])]
        self.waiting = new
        self.steps.append(join(step, *(self._action(token) for token in ids)))
        values = self.processor.decode_values(ids, is_action=True)
        return int(values[0]) if self.is_discrete else values.reshape(self.shape)

    def _num_read(self) -> int:
        return 0 if self.cache is None else int(self.cache.get_seq_length())

    def _action(self, token: int) -> dict[str, Any]:
        values = self.processor.decode_values([token], is_action=True)
        return self.processor.action(values if not self.is_discrete else int(values[0]))

    def _read(self, piece: dict[str, Any]) -> Any:
        """Scores of what follows, once the cache holds the piece, too."""
        import torch

        batch = self.processor.batch([piece])
        inputs = {name: value.to(self.model.device) for name, value in batch.items() if name != "labels"}
        del inputs["attention_mask"]
        with torch.no_grad():
            outputs = self.model(**inputs, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        self.cache = outputs.past_key_values
        return outputs.logits[0, -1]


def evaluate(
    model: "PreTrainedModel",
    processor: "ProcessorMixin",
    name: str,
    num_episodes: int,
    seed: int,
    max_tokens: int | None = None,
    prompt: Sequence[Timestep] = (),
) -> list[float]:
    """Returns of episodes that a model plays.

    Args:
        model, processor, max_tokens, prompt: see `Player`.
        name: of the environment.
        num_episodes: how many.
        seed: of the starts.
    """
    environment, returns = make_environment(name), []
    player = Player(model, processor, environment, max_tokens, prompt)
    for episode in range(num_episodes):
        player.reset()
        observation, _ = environment.reset(seed=seed * 100_003 + episode)
        total, is_over = 0.0, False
        while not is_over:
            observation, reward, is_over = perform(environment, player.act(observation))
            total += reward
        returns.append(total)
    return returns
