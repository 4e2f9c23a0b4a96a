"""Training in stages: which parts of a model of several learn, and which stay as they are."""

from typing import Any

from torch import nn

from .configuration_vlm import STAGES

# The first word of a weight's name inside the model -> which part it is of
PARTS = {
    **{"vision_tower": "vision", "patch_embed": "vision"},
    **{"language_model": "language", "lm_head": "language"},
    **dict.fromkeys(
        ("projector", "media_norm", "cross_attention", "visual_projection", "text_projection", "logit_scale"),
        "connector",
    ),
}


class StagedModel:
    """Mixin, `class X(StagedModel, ZooPreTrainedModel)`: `config.stage` says which parts learn."""

    def post_init(self) -> None:
        """As for all models; then the parts that the config's stage leaves alone are frozen."""
        super().post_init()
        self._freeze()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As for all models; transformers forgets which weights were frozen."""
        loaded = super().from_pretrained(*args, **kwargs)
        (loaded[0] if isinstance(loaded, tuple) else loaded)._freeze()
        return loaded

    def train_stage(self, stage: str) -> None:
        """Let the parts of a stage learn and freeze the others.

        Args:
            stage: see `ZooVlmConfig`.

        Raises:
            ValueError: there is no such stage.
        """
        if stage not in STAGES:
            raise ValueError(f"stage must be one of {', '.join(STAGES)}, got {stage!r}")
        self.config.stage = stage
        self._freeze()
        self.train(self.training)

    def trainable_parameter_names(self) -> list[str]:
        """Names of what learns."""
        return [name for name, parameter in self.named_parameters() if parameter.requires_grad]

    def _freeze(self) -> None:
        for name, parameter in self.named_parameters():
            part = PARTS.get(name.removeprefix("model.").split(".")[0])
            if part is not None:
                parameter.requires_grad_(part in STAGES[self.config.stage])

    def train(self, mode: bool = True) -> "StagedModel":
        """As ever, but frozen parts stay as they are in evaluation: a frozen part draws no dropout."""
        super().train(mode)
        trained = STAGES[self.config.stage]
        for name, part in PARTS.items():
            module = getattr(self, name, None)
            if part not in trained and isinstance(module, nn.Module):
                module.eval()
        return self
