"""BERT and RoBERTa checkpoints for long texts: Longformer or BigBird with their weights and more positions.

Beltagy et al. 2020, https://arxiv.org/abs/2004.05150, section 5: the table of positions is repeated until it is long
enough, which keeps what attention knows of neighbours, and the projections of global tokens start as copies of the
others. On texts that the new attention sees as a whole the answers are those of the source.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import refuse_filled, unknown_name
from .registry import ARCHITECTURES, Architecture, find_architecture

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

LONG = ("zoo_longformer", "zoo_bigbird")


def extend_positions(
    model: "PreTrainedModel", to: str = "zoo_longformer", positions: int = 4096, **options: Any
) -> "PreTrainedModel":
    """The same encoder for longer texts, with a copy of the weights.

    Args:
        model: a zoo_mlm model, any head that the target has too; a head that is made otherwise there starts anew.
        to: zoo_longformer or zoo_bigbird.
        positions: how many tokens a text may have.
        options: further fields of the target's config, such as `attention_window` or `block_size`.

    Raises:
        ValueError: another kind of model or target, a head that the target lacks, or fewer positions than there are.
    """
    source = ARCHITECTURES["zoo_mlm"]
    if model.config.model_type != source.model_type:
        raise ValueError(f"only zoo_mlm (BERT, RoBERTa) can be extended, not {model.config.model_type}")
    if model.config.num_attention_blocks > 1:
        raise ValueError(f"num_attention_blocks={model.config.num_attention_blocks}: {to} has no such attention")
    target = check_target(to)
    config = model.config
    offset = config.position_offset
    known = config.max_position_embeddings - offset
    if positions < known:
        raise ValueError(f"positions must be at least the {known} that the model has, got {positions}")
    theirs = target.config_class().to_dict()
    fields = {name: value for name, value in config.to_dict().items() if name in theirs}
    fields = {name: value for name, value in fields.items() if name not in ("architectures", "model_type")}
    fields |= {"max_position_embeddings": positions + offset, **options}
    longer = target.model_class(source.task_of(type(model)))(target.config_class(**fields))
    weights = {}
    own = model.state_dict()
    for name, tensor in longer.state_dict().items():
        from_name = name.replace("_global_proj.", "_proj.")
        if name.endswith("embed_positions.weight"):
            tensor = repeated(own[name], offset, positions)
        elif from_name in own and own[from_name].shape == tensor.shape:
            tensor = own[from_name]
        elif ".layers." in f".{name}" or "embed_" in name:
            raise ValueError(f"the model has no weight for {name!r} of {to}")
        weights[name] = tensor.clone()
    longer.load_state_dict(weights)
    longer.tie_weights()
    return longer.to(model.dtype).train(model.training)


def check_target(to: str) -> Architecture:
    """The architecture to extend to.

    Raises:
        ValueError: it is not made for long texts.
    """
    target = find_architecture(to)
    if target.model_type not in LONG:
        raise unknown_name("architecture to extend to", to, LONG)
    return target


def repeated(table: "Tensor", offset: int, positions: int) -> "Tensor":
    """A table of positions (offset + known, D), repeated after its first rows -> (offset + positions, D)."""
    import torch

    first, rest = table[:offset], table[offset:]
    return torch.cat((first, rest.repeat(-(-positions // len(rest)), 1)[:positions]))


def extend_folder(source: str, target: str, to: str, positions: int) -> Path:
    """Extend a checkpoint folder of BERT or RoBERTa, transformers' or the zoo's, tokenizer and all.

    Args:
        source: folder or Hub name to read.
        target: folder to write; it must be empty or new.
        to: zoo_longformer or zoo_bigbird.
        positions: how many tokens a text may have.

    Raises:
        ValueError: see `extend_positions`, or a target folder that holds files.
        FileNotFoundError: no such source folder.
    """
    from transformers import AutoTokenizer

    from .upstream.convert import open_folder

    folder = Path(target)
    refuse_filled(folder)
    check_target(to)
    if str(source).startswith(("/", ".")) and not Path(source).is_dir():
        raise FileNotFoundError(f"{source} is not a folder")
    extend_positions(open_folder(ARCHITECTURES["zoo_mlm"], source), to, positions).save_pretrained(folder)
    if any(Path(source).glob("tokenizer*")):
        AutoTokenizer.from_pretrained(source, model_max_length=positions).save_pretrained(folder)
    return folder
