"""BERT and RoBERTa checkpoints for long texts: Hi-BERT with their weights.

Chalkidis et al. 2022, https://arxiv.org/abs/2210.05529, section 4, as in their code: blocks over segments are the
source's layers in order, a block over documents is a copy of the layer before it, and the numbers of segments start as
the source's first positions.
"""

from typing import TYPE_CHECKING, Any

from .extend import repeated
from .registry import ARCHITECTURES

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def as_hierarchical(
    model: "PreTrainedModel", layout: str = "SSSD", segment_size: int = 128, max_segments: int = 32, **options: Any
) -> "PreTrainedModel":
    """The same encoder as one of segments and documents, with a copy of the weights.

    Args:
        model: a zoo_mlm model, any head that zoo_hibert has too; BERT and RoBERTa folders open as one.
        layout: kinds of blocks, repeated until every layer of the source reads segments somewhere.
        segment_size: tokens of a segment, at most as many as the source can take.
        max_segments: how many segments a row may have.
        options: further fields of `ZooHibertConfig`.

    Raises:
        ValueError: another kind of model, a head that zoo_hibert lacks, a layout without segments, or sizes that do
            not fit.
    """
    import torch

    source, target = ARCHITECTURES["zoo_mlm"], ARCHITECTURES["zoo_hibert"]
    if model.config.model_type != source.model_type:
        raise ValueError(f"only zoo_mlm (BERT, RoBERTa) can become zoo_hibert, not {model.config.model_type}")
    config, offset = model.config, model.config.position_offset
    if segment_size > config.max_position_embeddings - offset:
        raise ValueError(
            f"segment_size must be at most the {config.max_position_embeddings - offset} places that the model has, "
            f"got {segment_size}"
        )
    layout = full_layout(layout, config.num_hidden_layers)
    known = target.config_class().to_dict()
    fields = {n: v for n, v in config.to_dict().items() if n in known and n not in ("architectures", "model_type")}
    fields |= {"layout": layout, "num_hidden_layers": len(layout), "max_segments": max_segments}
    fields |= {"segment_size": segment_size, "max_position_embeddings": segment_size + offset, **options}
    longer = target.model_class(source.task_of(type(model)))(target.config_class(**fields))
    origin = [max(layout[: i + 1].count("S") - 1, 0) for i in range(len(layout))]
    own, weights = model.state_dict(), {}
    for name, tensor in longer.state_dict().items():
        before, found, after = name.partition("layers.")
        number, _, rest = after.partition(".")
        if name.endswith("embed_segments.weight"):
            first = next(table for other, table in own.items() if other.endswith("embed_positions.weight"))
            numbers = repeated(first, offset, max_segments)[offset:] if offset else repeated(first, 0, max_segments)
            tensor = torch.cat((torch.zeros_like(numbers[:1]), numbers[:max_segments]))
        elif name.endswith("embed_positions.weight"):
            tensor = own[name][: len(tensor)]
        elif found:
            tensor = own[f"{before}layers.{origin[int(number)]}.{rest}"]
        elif name in own and own[name].shape == tensor.shape:
            tensor = own[name]
        weights[name] = tensor.clone()
    longer.load_state_dict(weights)
    longer.tie_weights()
    return longer.to(model.dtype).train(model.training)


def full_layout(pattern: str, num_layers: int) -> str:
    """The pattern, repeated until it has `num_layers` blocks of segments and what follows them."""
    if "S" not in pattern:
        raise ValueError(f"layout must have blocks of segments (S), got {pattern!r}")
    layout = ""
    while layout.count("S") < num_layers or pattern[len(layout) % len(pattern)] == "D":
        layout += pattern[len(layout) % len(pattern)]
    return layout
