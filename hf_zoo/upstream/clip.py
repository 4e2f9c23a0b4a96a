"""CLIP as `zoo_clip`: its image tower as `zoo_vit`, its text tower as `zoo_llm`."""

from collections.abc import Callable
from typing import Any

from transformers.core_model_loading import WeightRenaming, WeightTransform

from ..registry import ARCHITECTURES
from .mlm import renamings
from .table import Upstream
from .vit import TOWER_NAMES
from .vit import UPSTREAM as TOWERS

IMAGE = next(upstream for upstream in TOWERS if upstream.model_type == "clip_vision_model")


def weights() -> list[WeightTransform]:
    """Only names differ."""
    return [
        WeightRenaming(r"text_model\.embeddings\.token_embedding\.", r"text_model\.embed_tokens\."),
        WeightRenaming(r"text_model\.embeddings\.position_embedding\.", r"text_model\.embed_positions\."),
        WeightRenaming(
            r"vision_model\.embeddings\.position_embedding\.", r"vision_model\.embeddings\.embed_positions\."
        ),
        WeightRenaming(r"embeddings\.class_embedding", r"embeddings\.cls_token"),
        *renamings(TOWER_NAMES),
        WeightRenaming(r"self_attn\.out_proj\.", r"self_attn\.o_proj\."),
        WeightRenaming(r"pre_layrnorm\.", r"embed_norm\."),
        WeightRenaming(r"vision_model\.post_layernorm\.", r"vision_model\.norm\."),
        WeightRenaming(r"text_model\.final_layer_norm\.", r"text_model\.norm\."),
    ]


TEXT = Upstream(
    "clip_text_model",
    weights,
    renamed={"norm_eps": "layer_norm_eps"},
    fixed={
        **{"norm": "layer_norm", "positions": "learned", "is_gated_mlp": False, "use_cache": False},
        **{"attention_bias": True, "mlp_bias": True},
    },
)
_OLD_END = 2  # of folders from before the end token was right, whose texts are read at their highest id


def reader(table: Upstream, model_type: str, field: str) -> Callable[[Any], dict[str, Any]]:
    """A function of an upstream config: the config of one of its parts, as the zoo's dictionary."""

    def read(config: Any) -> dict[str, Any]:
        part = table.read_config(ARCHITECTURES[model_type].config_class, getattr(config, field).to_dict())
        return {**part, "model_type": model_type}

    return read


UPSTREAM = [
    Upstream(
        "clip",
        weights,
        fixed={"loss_type": "clip"},
        derived={
            "vision_config": (None, reader(IMAGE, "zoo_vit", "vision_config")),
            "text_config": (None, reader(TEXT, "zoo_llm", "text_config")),
            "text_pooling": (None, lambda c: "highest_id" if c.text_config.eos_token_id == _OLD_END else "eot"),
        },
        written={
            "vision_config": lambda config: IMAGE.write_config(config.vision_config).to_dict(),
            "text_config": lambda config: TEXT.write_config(config.text_config).to_dict(),
        },
    ),
]
