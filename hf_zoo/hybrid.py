"""A dense decoder made a hybrid: some of its layers are replaced, the others keep their weights."""

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from .registry import find_architecture

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def as_hybrid(
    model: "PreTrainedModel | str",
    replaced: dict[int, str | tuple[str, str]],
    options: dict[str, dict[str, Any]] | None = None,
    train_only_new: bool = False,
) -> "PreTrainedModel":
    """A hybrid with the weights of a dense decoder wherever a part was not replaced; ready to be tuned.

    New parts start like those of a fresh model. With nothing replaced the hybrid computes what the decoder does.

    Args:
        model: a `zoo_llm` with any head, or a folder that opens as one: its own, or of Llama, Mistral, GPT-2, ...
        replaced: number of a layer -> its new token mixer, or its token mixer and its channel mixer, as in
            `layer_types` and `mlp_types` of `ZooHybridConfig`.
        options: fields of the new parts, as in `ZooHybridConfig`.
        train_only_new: whether all but the new parts is frozen.

    Raises:
        ValueError: no dense decoder, a layer that it does not have, or a part that cannot be made.
    """
    dense = find_architecture("zoo_llm")
    if isinstance(model, str):
        model = dense.model_class().from_pretrained(model, dtype="auto")
    if model.config.model_type != dense.model_type:
        raise ValueError(f"{model.config.model_type} cannot be made a hybrid, only {dense.model_type} can")
    config, num_layers = model.config, model.config.num_hidden_layers
    mixers, mlps = list(config.layer_types), ["mlp"] * num_layers
    for layer, parts in replaced.items():
        if not 0 <= layer < num_layers:
            raise ValueError(f"layer {layer} cannot be replaced: the model has {num_layers} layers, counted from 0")
        mixers[layer], mlps[layer] = (parts, "mlp") if isinstance(parts, str) else parts

    hybrid = find_architecture("zoo_hybrid")
    own = {field.name for field in fields(hybrid.config_class)} - {"mixer_types"}
    values = {name: value for name, value in config.to_dict().items() if name in own and name != "architectures"}
    values |= {"layer_types": mixers, "mlp_types": mlps, "options": options, "id2label": config.id2label}
    head = type(model).__name__.removeprefix(dense.class_prefix)
    model_class = getattr(hybrid.module("modeling"), hybrid.class_prefix + head)
    result = model_class._from_config(hybrid.config_class(**values), dtype=model.dtype).train(model.training)

    weights, new = model.state_dict(), result.state_dict()
    replaced_parts = set()  # an attention of another kind may have names alike
    for layer in range(num_layers):
        if mixers[layer] != config.layer_types[layer]:
            replaced_parts |= {f"layers.{layer}.self_attn.", f"layers.{layer}.mixer."}
        if mlps[layer] != "mlp":
            replaced_parts.add(f"layers.{layer}.mlp.")
    kept = {name for name in new if name in weights and not any(part in name for part in replaced_parts)}
    result.load_state_dict({name: weights[name] for name in kept}, strict=False)
    if train_only_new:
        for name, parameter in result.named_parameters():
            parameter.requires_grad_(name not in kept)
    return result.to(model.device)
