"""Configuration of the large action model."""

from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from ..base_config import ZooConfig
from ..parts import PART, part_config

# LLaMA-3.1-8B, on which Llama-xLAM-2-8b-fc-r was tuned
CORE = {
    **{"model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336},
    **{"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-5},
    **{"max_position_embeddings": 131072, "bos_token_id": 128000, "eos_token_id": 128009},
    "rope_parameters": {
        **{"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0},
        **{"high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
    },
}
MODES = ("copy", "choice", "value", "generate", "omit")  # the ways to bind a parameter, see binder.py


@strict
class ZooLamConfig(ZooConfig):
    """A decoder, of any architecture of the zoo or of transformers, and the sizes of what makes it act.

    Args:
        text_config: config of the decoder, or a dictionary with its `model_type`; also called `core_config`.
        num_profile_vectors: vectors that a profile becomes, before the first token.
        num_profile_values: numeric fields that a profile may have.
        tool_dim: size of the space in which tools are found.
        max_tools: how many tools the first stage leaves to the pointer.
        max_parameters: of a tool.
        binder_dim: size of the queries for arguments.
        binder_modes: which of "copy", "choice", "value", "generate" and "omit" arguments may be bound by.
        max_span: tokens of the longest copied argument.
        num_subgoals, subgoal_dim: of the codebook of options.
        working_slots: vectors of working memory.
        episodic_dim: size of the keys of episodic memory.
        episodic_capacity: memories that it keeps.
        episodic_tokens: tokens that a memory's summary keeps.
        recall_k: memories that are recalled at once.
        recall_time: steps after which recency has fallen to 1/e.
        use_episodic_memory: whether memories are recalled; writing goes on without it.
        latent_dim: size of the world model's states.
        planner: what `hf_zoo.agents` decides with: the decision heads alone ("react"), options over them
            ("hierarchical"), a tree search in the world model ("mcts"), or both.
        mcts_simulations, c1, c2, discount, max_actions: see search.py.
        pointer_weight, span_weight, subgoal_weight, value_weight: of the losses beside that of language.
    """

    model_type = "zoo_lam"
    sub_configs: ClassVar[dict[str, Any]] = {"text_config": PART}
    attribute_map: ClassVar[dict[str, str]] = {"core_config": "text_config"}
    keys_to_ignore_at_inference = ["past_key_values", "losses"]

    text_config: dict | PreTrainedConfig | None = None
    num_profile_vectors: int = 8
    num_profile_values: int = 8
    tool_dim: int = 256
    max_tools: int = 128
    max_parameters: int = 16
    binder_dim: int = 256
    binder_modes: list[str] | None = None
    max_span: int = 32
    num_subgoals: int = 64
    subgoal_dim: int = 256
    working_slots: int = 16
    episodic_dim: int = 256
    episodic_capacity: int = 4096
    episodic_tokens: int = 32
    recall_k: int = 4
    recall_time: float = 1000.0
    use_episodic_memory: bool = True
    latent_dim: int = 512
    planner: Literal["react", "hierarchical", "mcts", "mcts+hierarchical"] = "react"
    mcts_simulations: int = 32
    c1: float = 1.25
    c2: float = 19652.0
    discount: float = 0.99
    max_actions: int = 16
    pointer_weight: float = 1.0
    span_weight: float = 1.0
    subgoal_weight: float = 0.5
    value_weight: float = 0.5
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        text_config = kwargs.pop("core_config", None) or self.text_config or CORE
        self.text_config = part_config(text_config, "text_config")
        if self.binder_modes is None:
            self.binder_modes = list(MODES)
        super().__post_init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """Of the decoder."""
        return self.text_config.hidden_size

    @property
    def num_hidden_layers(self) -> int:
        """Of the decoder."""
        return self.text_config.num_hidden_layers

    @property
    def layer_types(self) -> list[str]:
        """Of the decoder; all of full attention where it does not say."""
        return getattr(self.text_config, "layer_types", None) or ["full_attention"] * self.num_hidden_layers

    @property
    def vocab_size(self) -> int:
        """Of the decoder."""
        return self.text_config.vocab_size

    @vocab_size.setter
    def vocab_size(self, value: int) -> None:
        self.text_config.vocab_size = value

    @property
    def pad_token_id(self) -> int | None:
        """Of the decoder."""
        return self.text_config.pad_token_id

    @pad_token_id.setter
    def pad_token_id(self, value: int | None) -> None:
        self.text_config.pad_token_id = value

    def validate_architecture(self) -> None:
        """How the parts fit together."""
        if self.text_config.is_encoder_decoder:
            raise ValueError(f"text_config must be of a decoder, and {self.text_config.model_type} is none")
        if unknown := [mode for mode in self.binder_modes if mode not in MODES]:
            raise ValueError(f"binder_modes may have {', '.join(MODES)}, and {unknown[0]!r} is none of them")
        sizes = ("tool_dim", "max_tools", "max_parameters", "binder_dim", "max_span", "subgoal_dim", "working_slots")
        sizes += ("episodic_dim", "episodic_capacity", "episodic_tokens", "recall_k", "latent_dim", "mcts_simulations")
        for field in (*sizes, "max_actions"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        if self.recall_k > self.episodic_capacity:
            raise ValueError(
                f"recall_k={self.recall_k} must be at most episodic_capacity={self.episodic_capacity}, the memories "
                "that there may be"
            )
        if not 0.0 < self.discount <= 1.0:
            raise ValueError(f"discount must be above 0 and at most 1, got {self.discount}")
