"""Dense models cut to low rank, and low-rank models made dense again."""

from dataclasses import fields
from typing import TYPE_CHECKING

from .registry import find_architecture

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def compress(model: "PreTrainedModel", low_rank: dict[str, int | float]) -> "PreTrainedModel":
    """The same model with some projections cut to a low rank, each the nearest to the dense one by singular values.

    Args:
        model: a `zoo_slm`, or a `zoo_llm` that has a counterpart there (rotary or learned positions, pre-norm).
        low_rank: name of a projection -> its rank, or as a float the share of its full rank; see `ZooSlmConfig`.

    Raises:
        ValueError: a rank that saves no weights, an unknown projection, or a model that has no low-rank form.
    """
    return _rebuilt(model, _as_slm(model, low_rank))


def expand(model: "PreTrainedModel") -> "PreTrainedModel":
    """The same function with every low-rank projection multiplied out.

    Raises:
        ValueError: the model has no low-rank form.
    """
    return _rebuilt(model, _as_slm(model, None))


def _as_slm(model: "PreTrainedModel", low_rank: dict[str, int | float] | None) -> "PreTrainedConfig":
    """The config of the result; fields of another architecture that `zoo_slm` lacks must have their defaults."""
    config_class = find_architecture("zoo_slm").config_class
    config, values = model.config, model.config.to_dict()
    known = {field.name for field in fields(config_class)}
    if config.model_type == "zoo_llm":
        plain = type(config)()
        for field in fields(config):
            if field.name not in known | {"is_gated_mlp"} and values[field.name] != getattr(plain, field.name):
                raise ValueError(f"zoo_slm has no {field.name}={values[field.name]!r}: the model cannot be compressed")
        values["feed_forward"] = "gated" if config.is_gated_mlp else "plain"
    elif config.model_type != "zoo_slm":
        raise ValueError(f"{config.model_type} has no low-rank form: only zoo_slm and zoo_llm have one")
    values = {name: value for name, value in values.items() if name in known} | {"id2label": config.id2label}
    return config_class(**{**values, "low_rank": low_rank})


def _rebuilt(model: "PreTrainedModel", config: "PreTrainedConfig") -> "PreTrainedModel":
    """A model of the config with the weights of another, factorised or multiplied out where the two differ."""
    import torch
    from torch import nn

    from hf_zoo.modeling.layers.low_rank import LowRankLinear

    head = type(model).__name__.removeprefix(find_architecture(model.config.model_type).class_prefix)
    model_class = getattr(find_architecture("zoo_slm").module("modeling"), f"ZooSlm{head}")
    result = model_class._from_config(config, dtype=model.dtype).train(model.training)
    weights = model.state_dict()
    if "score.bias" in result.state_dict():  # a classifier of `zoo_llm` has none
        weights.setdefault("score.bias", torch.zeros_like(result.score.bias))
    for name, layer in result.named_modules():
        if not isinstance(layer, nn.Linear):
            continue
        source = model.get_submodule(name)
        if not isinstance(layer, LowRankLinear) and not isinstance(source, LowRankLinear):
            continue
        dense = source.dense() if isinstance(source, LowRankLinear) else source
        made = LowRankLinear.from_dense(dense, layer.rank) if isinstance(layer, LowRankLinear) else dense
        weights = {key: value for key, value in weights.items() if key.rpartition(".")[0] != name}
        weights |= {f"{name}.{key}": value for key, value in made.state_dict().items()}
    result.load_state_dict(weights)
    return result.to(model.device)
