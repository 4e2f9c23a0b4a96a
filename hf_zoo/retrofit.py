"""A dense decoder made one that retrieves: all of its weights are kept."""

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from .errors import unknown_name
from .registry import find_architecture

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def as_retro(model: "PreTrainedModel | str", train_only_new: bool = True, **options: Any) -> "PreTrainedModel":
    """A `zoo_retro` with the weights of a dense decoder; at first what it retrieves changes nothing.

    The projections by which attention to neighbours reaches the text start at zero, so that the logits are exactly
    those of the decoder, with any neighbours and without.

    Args:
        model: a `zoo_llm` with any head, or a folder that opens as one: its own, or of Llama, Mistral, GPT-2, ...
        train_only_new: whether all but the new parts is frozen, as the paper does.
        options: fields of `ZooRetroConfig`, such as chunk_size, cross_layers and the encoder's sizes.

    Raises:
        ValueError: no dense decoder, or one that the options do not fit.
    """
    import torch

    dense = find_architecture("zoo_llm")
    if isinstance(model, str):
        model = dense.model_class().from_pretrained(model, dtype="auto")
    config = model.config
    if config.model_type != dense.model_type:
        raise ValueError(f"{config.model_type} cannot be made to retrieve, only {dense.model_type} can")
    retro = find_architecture("zoo_retro")
    own = {field.name for field in fields(config)} - {"architectures"}
    values = {name: value for name, value in config.to_dict().items() if name in own}
    known = {field.name for field in fields(retro.config_class)}
    for name in options:
        if name not in known:
            raise unknown_name("field of ZooRetroConfig", name, known)
    head = type(model).__name__.removeprefix(dense.class_prefix)
    model_class = getattr(retro.module("modeling"), retro.class_prefix + head)
    new_config = retro.config_class(**{**values, "id2label": config.id2label, **options})
    result = model_class._from_config(new_config, dtype=model.dtype).train(model.training)

    kept = model.state_dict()
    result.load_state_dict(kept, strict=False)
    with torch.no_grad():
        for name, parameter in result.named_parameters():
            if name.endswith("cross_attn.o_proj.weight") and "neighbour_encoder" not in name:
                parameter.zero_()
            if train_only_new:
                parameter.requires_grad_(name not in kept)
    return result.to(model.device)
