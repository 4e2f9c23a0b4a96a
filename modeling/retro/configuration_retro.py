"""Configuration of the retrieval-enhanced decoder."""

from huggingface_hub.dataclasses import strict

from ..llm.configuration_llm import ZooLlmConfig


@strict
class ZooRetroConfig(ZooLlmConfig):
    """The fields of the dense decoder (llm), and those of what it makes of retrieved text.

    Args:
        chunk_size: tokens of a chunk of the text (m); neighbours are retrieved once a chunk.
        cross_layers: numbers, from 0, of the layers that attend to neighbours; by default every third from the sixth
            on as published, or the last of a model that has no sixth.
        encoder_hidden_size, encoder_intermediate_size, num_encoder_layers, num_encoder_heads, encoder_head_dim: of
            the encoder of neighbours.
        encoder_cross_layers: numbers of the encoder's layers that attend to the chunk the neighbours are of.
    """

    model_type = "zoo_retro"

    chunk_size: int = 64
    cross_layers: list[int] | None = None
    encoder_hidden_size: int = 896
    encoder_intermediate_size: int = 3584
    num_encoder_layers: int = 2
    num_encoder_heads: int = 16
    encoder_head_dim: int | None = None
    encoder_cross_layers: list[int] | None = None

    def __post_init__(self, **kwargs) -> None:
        if self.cross_layers is None:
            self.cross_layers = list(range(5, self.num_hidden_layers, 3)) or [max(self.num_hidden_layers - 1, 0)]
        if self.encoder_head_dim is None:
            self.encoder_head_dim = self.encoder_hidden_size // max(self.num_encoder_heads, 1)
        if self.encoder_cross_layers is None:
            self.encoder_cross_layers = [0]
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """How the sizes fit together."""
        super().validate_architecture()
        for field, of in (("cross_layers", "num_hidden_layers"), ("encoder_cross_layers", "num_encoder_layers")):
            layers, count = getattr(self, field), getattr(self, of)
            if not layers or len(set(layers)) < len(layers) or not 0 <= min(layers) <= max(layers) < count:
                raise ValueError(f"{field} must be different layers of 0 to {of} - 1 = {count - 1}, got {layers}")
        for field in ("head_dim", "encoder_head_dim"):
            if getattr(self, field) % 2:
                raise ValueError(f"{field} must be even for rotary positions, got {getattr(self, field)}")
        if self.block_layout == "parallel":
            raise ValueError("block_layout 'parallel' has no place between attention and MLP for retrieved text")
