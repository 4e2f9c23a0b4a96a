"""The authors' own files of RWKV-4 to 7, `.pth` state dicts, as zoo models.

Names and shapes are those of the training code in https://github.com/BlinkDL/RWKV-LM: RWKV-v4/src/model.py (4),
RWKV-v5/src/model.py (5.2, with a gate and a decay for each channel), RWKV-v5/rwkv_v6_demo.py (6),
RWKV-v7/train_temp/src/model.py (7). Sizes follow from the tensors.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..registry import ARCHITECTURES

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Generation:
    """How the files of one generation are told and read.

    Args:
        title: what people call it.
        architecture: which of the zoo holds it.
        mark: a name that its first block has, and no later generation.
        config: makes the config's fields from the tensors of the last block.
        names: (pattern inside a block, name in the zoo's, what is done to the tensor).
    """

    title: str
    architecture: str
    mark: str
    config: Callable[[dict[str, "Tensor"]], dict[str, Any]]
    names: list[tuple[str, str, Callable[["Tensor"], "Tensor"]]]


def _keep(x: "Tensor") -> "Tensor":
    return x


def _flat(x: "Tensor") -> "Tensor":
    return x.flatten()


def _complement(x: "Tensor") -> "Tensor":
    """The share of the token itself as that of the token before, in float32: half precision would lose small ones."""
    return (1 - x.float()).flatten()


def _transposed(x: "Tensor") -> "Tensor":
    return x.t().contiguous()


PROJECTIONS = [
    (r"att\.receptance\.weight", "mixer.r_proj.weight", _keep),
    (r"att\.key\.weight", "mixer.k_proj.weight", _keep),
    (r"att\.value\.weight", "mixer.v_proj.weight", _keep),
    (r"att\.output\.weight", "mixer.o_proj.weight", _keep),
    (r"ffn\.key\.weight", "mlp.up_proj.weight", _keep),
    (r"ffn\.value\.weight", "mlp.down_proj.weight", _keep),
    (r"ffn\.receptance\.weight", "mlp.gate_proj.weight", _keep),
    (r"ln1\.(\w+)", r"mixer_norm.\1", _keep),
    (r"ln2\.(\w+)", r"mlp_norm.\1", _keep),
]
HEADS = [
    (r"att\.gate\.weight", "mixer.gate_proj.weight", _keep),
    (r"att\.ln_x\.(\w+)", r"mixer.head_norm.\1", _keep),
    (r"att\.time_faaaa", "mixer.time_first", _keep),
]


# The small networks of RWKV-7: the zoo's name, and the letter of the authors' three tensors
RANKS_7 = {"decay": "w", "rate": "a", "value": "v", "gate": "g"}

GENERATIONS = [
    Generation(
        "RWKV-7",
        "zoo_rwkv7",
        "att.x_r",
        lambda block: {
            "head_size": block["att.r_k"].shape[1],
            **{f"{ours}_rank": block[f"att.{x}1"].shape[1] for ours, x in RANKS_7.items() if f"att.{x}1" in block},
        },
        [
            *PROJECTIONS,
            *HEADS,
            (r"att\.x_([rwkvag])", r"mixer.mix.\1", _flat),
            (r"ffn\.x_k", "mlp.mix_k", _flat),
            (r"att\.(k_k|k_a)", r"mixer.\1", _flat),
            (r"att\.r_k", "mixer.r_k", _keep),
            *((rf"att\.{x}0", f"mixer.{ours}.bias", _flat) for ours, x in RANKS_7.items()),
            *((rf"att\.{x}1", f"mixer.{ours}.down.weight", _transposed) for ours, x in RANKS_7.items()),
            *((rf"att\.{x}2", f"mixer.{ours}.up.weight", _transposed) for ours, x in RANKS_7.items()),
        ],
    ),
    Generation(
        "RWKV-6",
        "zoo_rwkv6",
        "att.time_maa_x",
        lambda block: {
            "head_size": block["att.time_faaaa"].shape[1],
            "shift_rank": block["att.time_maa_w2"].shape[1],
            "decay_rank": block["att.time_decay_w2"].shape[0],
        },
        [
            *PROJECTIONS,
            *HEADS,
            (r"att\.time_maa_([wkvrg])", r"mixer.mix.\1", _flat),
            (r"att\.time_maa_x", "mixer.mix_x", _flat),
            (r"att\.time_maa_w1", "mixer.shift_down.weight", _transposed),
            (r"att\.time_maa_w2", "mixer.shift_up", _keep),
            (r"att\.time_decay", "mixer.time_decay", _flat),
            (r"att\.time_decay_w1", "mixer.decay.down.weight", _transposed),
            (r"att\.time_decay_w2", "mixer.decay.up.weight", _transposed),
            (r"ffn\.time_maa_([kr])", r"mlp.mix_\1", _flat),
        ],
    ),
    Generation(
        "RWKV-5",
        "zoo_rwkv6",
        "att.time_mix_g",
        lambda block: {"head_size": block["att.time_faaaa"].shape[1], "is_data_dependent": False},
        [
            *PROJECTIONS,
            *HEADS,
            (r"att\.time_mix_([kvrg])", r"mixer.mix.\1", _complement),
            (r"att\.time_decay", "mixer.time_decay", _flat),
            (r"ffn\.time_mix_([kr])", r"mlp.mix_\1", _complement),
        ],
    ),
    Generation(
        "RWKV-4",
        "zoo_rwkv4",
        "att.time_first",
        lambda block: {},
        [
            *PROJECTIONS,
            (r"att\.time_mix_([kvr])", r"mixer.mix_\1", _flat),
            (r"att\.time_(decay|first)", r"mixer.time_\1", _keep),
            (r"ffn\.time_mix_([kr])", r"mlp.mix_\1", _flat),
        ],
    ),
]
OUTSIDE = {
    "emb.weight": "model.embed_tokens.weight",
    "blocks.0.ln0.weight": "model.embed_norm.weight",
    "blocks.0.ln0.bias": "model.embed_norm.bias",
    "ln_out.weight": "model.norm.weight",
    "ln_out.bias": "model.norm.bias",
    "head.weight": "lm_head.weight",
}


def open_rwkv_file(path: str, architecture: str) -> "PreTrainedModel":
    """The language model that a file of the authors holds, in the precision of the file.

    Args:
        path: a `.pth` file; it is read as weights only, and no code in it is run.
        architecture: the zoo's name of what it must be.

    Raises:
        ValueError: the file holds something else, another generation, or lacks a tensor.
    """
    import torch

    weights = _load(path)
    generation = _generation(path, weights)
    if generation.architecture != architecture:
        needed = generation.architecture
        raise ValueError(f"{path} holds {generation.title}: convert it --to {needed}, not {architecture}")
    config = _config(generation, weights)
    with torch.device("meta"):
        model = ARCHITECTURES[architecture].model_class()(config)
    expected, renamed = model.state_dict(), _rename(generation, weights)
    for name in expected:
        if name not in renamed:
            raise ValueError(f"{path} lacks the weight of {name!r}: the file is cut short or of another kind")
        if renamed[name].shape != expected[name].shape:
            shapes = f"{tuple(renamed[name].shape)} and not {tuple(expected[name].shape)}"
            raise ValueError(f"{path}: the weight of {name!r} is {shapes}")
    exact = tuple(model._keep_in_fp32_modules_strict)
    for name, tensor in renamed.items():
        is_exact = any(part in name for part in exact)
        renamed[name] = tensor.float() if is_exact else tensor.to(config.dtype)
    model.load_state_dict({name: renamed[name] for name in expected}, assign=True)
    return model.eval()


def _load(path: str) -> dict[str, "Tensor"]:
    import pickle

    import torch

    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is no file of weights: {str(error).splitlines()[0]}") from None
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise ValueError(f"{path} holds a {type(weights).__name__} and no dictionary of tensors")
    return weights


def _generation(path: str, weights: dict[str, "Tensor"]) -> Generation:
    for generation in GENERATIONS:
        if f"blocks.0.{generation.mark}" in weights and "emb.weight" in weights:
            return generation
    first = ", ".join(sorted(weights)[:3]) or "none"
    titles = ", ".join(generation.title for generation in reversed(GENERATIONS))
    raise ValueError(f"{path} holds no state dict of {titles}; its tensors are {first}, ...")


def _config(generation: Generation, weights: dict[str, "Tensor"]) -> "PreTrainedConfig":
    numbers = [int(name.split(".")[1]) for name in weights if name.startswith("blocks.")]
    prefix = f"blocks.{max(numbers)}."
    block = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    vocab_size, hidden_size = weights["emb.weight"].shape
    return ARCHITECTURES[generation.architecture].config_class(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=max(numbers) + 1,
        intermediate_size=len(block["ffn.key.weight"]),
        dtype=weights["emb.weight"].dtype,
        **generation.config(block),
    )


def _rename(generation: Generation, weights: dict[str, "Tensor"]) -> dict[str, "Tensor"]:
    """Weights under the zoo's names; what no name is known for is left out, such as RWKV-7's unused first `v0`."""
    renamed = {}
    for name, tensor in weights.items():
        if name in OUTSIDE:
            renamed[OUTSIDE[name]] = tensor
            continue
        where = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
        for pattern, ours, change in generation.names if where else ():
            if found := re.fullmatch(pattern, where[2]):
                renamed[f"model.layers.{where[1]}.{found.expand(ours)}"] = change(tensor)
    return renamed
