"""What a model is made of and what it costs, found without building it.

Models are made on the meta device, where tensors have shapes and no data: a 70-billion-parameter preset takes
seconds and no memory. What a cache costs is measured on the tensors that the model itself puts there, so it holds for
attention, sliding windows and recurrent states alike.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import unknown_name
from .presets import create_config, find_preset
from .registration import register
from .registry import ARCHITECTURES, Architecture, zoo_parts

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedConfig, PreTrainedModel

DTYPES = ("float32", "bfloat16")
# Fields that make a model wide without changing who sees whom; a pattern is drawn at the tiny preset's
_WIDTHS = (
    *("vocab_size", "hidden_size", "intermediate_size"),
    *("text_vocab_size", "num_bins", "num_discrete", "separator_token_id", "image_token_id"),  # parts of a vocabulary
    *("num_attention_heads", "num_key_value_heads", "head_dim"),
)


@dataclass(frozen=True)
class Part:
    """A module with what it holds; equal neighbours in a list of layers are one part with several `copies`.

    Args:
        name: in its parent; "layers 0-31" for folded ones.
        kind: class name.
        shapes: of its own parameters, "weight (4096, 4096)".
        parameters: of one copy with everything below; a tied weight counts where it comes first.
        copies: how many equal neighbours there are.
        parts: the modules below.
    """

    name: str
    kind: str
    shapes: tuple[str, ...]
    parameters: int
    copies: int
    parts: tuple["Part", ...]

    @property
    def total(self) -> int:
        """Parameters of all copies."""
        return self.copies * self.parameters

    @property
    def label(self) -> str:
        """Name and class, "layers 0-31 (32 x LlmBlock)" for folded layers."""
        return f"{self.name} ({self.copies} x {self.kind})" if self.copies > 1 else f"{self.name} ({self.kind})"


@dataclass(frozen=True)
class CacheCost:
    """What a cache of one row takes, in bytes.

    Args:
        per_token: that every further token adds, as long as no window is full.
        fixed: whatever the length: states of recurrent layers.
        windows: width of a sliding window in tokens -> what all layers of that width take at most.
    """

    per_token: int
    fixed: int
    windows: dict[int, int]


@dataclass(frozen=True)
class Described:
    """A preset or a folder, and the class of model that is shown."""

    name: str
    architecture: Architecture
    config: "PreTrainedConfig"
    model_class: type["PreTrainedModel"]
    source: str
    is_folder: bool

    @cached_property
    def parts(self) -> Part:
        """The tree of modules."""
        return _part("model", self._on_meta("float32"), counted=set())

    def weight_bytes(self, dtype: str) -> int:
        """Memory of the weights in a dtype of torch."""
        import torch

        return self.parts.parameters * getattr(torch, dtype).itemsize

    def cache_cost(self, dtype: str) -> CacheCost | None:
        """What generation keeps, with weights and activations in a dtype of torch; None for what does not generate."""
        if not self.model_class.can_generate():
            return None
        model = self._on_meta(dtype)
        short, longer = _cache_bytes(model, 1), _cache_bytes(model, 2)
        growth = [b - a for a, b in zip(short, longer, strict=True)]
        windows = {}
        if width := getattr(self.config.get_text_config(), "sliding_window", None):
            full, beyond = _cache_bytes(model, 2 * width), _cache_bytes(model, 2 * width + 1)
            bounded = [a for a, b, g in zip(full, beyond, growth, strict=True) if g and a == b]
            windows = {width: sum(bounded)} if bounded else {}
        fixed = sum(a for a, g in zip(short, growth, strict=True) if not g)
        return CacheCost(sum(growth), fixed, windows)

    def _on_meta(self, dtype: str) -> "PreTrainedModel":
        import torch

        with torch.device("meta"):
            model = self.model_class(self.config).eval()
        model.tie_weights()
        return model.to(getattr(torch, dtype))


def describe(name: str, task: str | None = None) -> Described:
    """Look up a preset, or open the config of a checkpoint folder.

    Args:
        name: a preset or a folder that a zoo model was saved in.
        task: which head to show; without it the main one, or the one that was saved.

    Raises:
        ValueError: neither a preset nor a zoo folder, or a task that the architecture has no head for.
    """
    if Path(name).is_dir():
        return _describe_folder(name, task)
    if "/" in name:
        raise ValueError(f"{name} is not a folder; a preset has no '/' in its name")
    architecture, preset = find_preset(name)
    return Described(
        name,
        architecture,
        create_config(name),
        architecture.model_class(task or preset.get("task")),
        preset["source"],
        False,
    )


def _describe_folder(folder: str, task: str | None) -> Described:
    from transformers import AutoConfig, PreTrainedConfig

    from .upstream.convert import saved_task

    if not Path(folder, "config.json").is_file():
        raise ValueError(f"{folder} has no config.json; if a preset is meant, one of `hf-zoo list`")
    model_type = PreTrainedConfig.get_config_dict(folder)[0].get("model_type", "")
    if model_type not in ARCHITECTURES:
        raise unknown_name(
            "zoo architecture",
            model_type,
            ARCHITECTURES,
            f"`hf-zoo convert {folder} TARGET --to ...` makes one of it.",
        )
    register()
    architecture = ARCHITECTURES[model_type]
    model_class = architecture.model_class(saved_task(architecture, folder) if task is None else task)
    return Described(folder, architecture, AutoConfig.from_pretrained(folder), model_class, "this folder", True)


def _part(name: str, module: "nn.Module", counted: set[int]) -> Part:
    shapes, parameters = [], 0
    for own, tensor in module.named_parameters(recurse=False, remove_duplicate=False):
        is_tied = id(tensor) in counted
        counted.add(id(tensor))
        shapes.append(f"{own} {tuple(tensor.shape)}{' tied' if is_tied else ''}")
        parameters += 0 if is_tied else tensor.numel()
    below = tuple(_parts_below(module, counted))
    parameters += sum(part.total for part in below)
    return Part(name, type(module).__name__, tuple(shapes), parameters, 1, below)


def _parts_below(module: "nn.Module", counted: set[int]) -> Iterator[Part]:
    """The children; of a list of layers its items, neighbours that differ in nothing but their number as one."""
    from torch import nn

    for name, child in module.named_children():
        if not isinstance(child, nn.ModuleList) or any(True for _ in child.parameters(recurse=False)):
            yield _part(name, child, counted)  # a list with parameters of its own is torch's parametrization
            continue
        items = [_part(number, item, counted) for number, item in child.named_children()]
        for _, group in groupby(items, key=lambda part: replace(part, name="")):
            first, *rest = group
            numbers = f"{first.name}-{rest[-1].name}" if rest else first.name
            yield replace(first, name=f"{name} {numbers}", copies=1 + len(rest))


def short_count(count: int) -> str:
    """1_234_567 -> "1.23 M"."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


def _cache_bytes(model: "PreTrainedModel", num_tokens: int) -> list[int]:
    """Bytes in each layer of the cache after one row of so many tokens."""
    import torch

    with torch.device("meta"), torch.no_grad():
        ids = torch.zeros((1, num_tokens), dtype=torch.long)
        cache = model(input_ids=ids, use_cache=True).past_key_values
    return [_bytes_in(vars(layer)) for layer in cache.layers]


def _bytes_in(value: Any) -> int:
    import torch

    if isinstance(value, torch.Tensor):  # one without axes is a counter
        return value.numel() * value.element_size() if value.ndim else 0
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return 0
    return sum(_bytes_in(item) for item in value)


def attention_patterns(described: Described, num_tokens: int) -> dict[str, "Tensor"]:
    """Which token each token sees, for every kind of layer of the model: kind -> (T, T) of booleans.

    Entry (t, s) is whether |d hidden_t / d embedding_s| > 0 in a model of one such layer, with the preset's options
    and the tiny preset's widths: true for any architecture, since nothing is read from masks or names.

    Args:
        described: what to look at.
        num_tokens: T, at least 1.

    Raises:
        ValueError: the model takes no token ids, or not so many.
    """
    if num_tokens < 1:
        raise ValueError(f"a pattern needs at least 1 token, got {num_tokens}")
    patterns = {}
    for name, part in zoo_parts(described.config).items():
        if not hasattr(part, "vocab_size"):
            continue
        alone = replace(described, architecture=ARCHITECTURES[part.model_type], config=part)
        found = attention_patterns(alone, num_tokens)
        patterns |= {f"{name.removesuffix('_config')}: {kind}": seen for kind, seen in found.items()}
    if patterns:
        return patterns
    known = {field.name for field in fields(described.config)}
    if "vocab_size" not in known:
        raise ValueError(f"{described.name} takes no tokens, so it has no pattern over them")
    narrow = create_config(described.architecture.tiny_preset)
    widths = {name: getattr(narrow, name) for name in _WIDTHS if hasattr(narrow, name)}
    values = {name: value for name, value in described.config.to_dict().items() if name in known}
    values |= {name: value for name, value in widths.items() if name in known} | {"num_hidden_layers": 1}
    values |= dict.fromkeys(known & {"cross_layers"}, [0])  # numbers of layers, of which one is left
    values |= dict.fromkeys(known & {"pad_token_id", "bos_token_id", "eos_token_id"})  # beyond the narrow vocabulary
    # A hybrid says in `mixer_types` what each layer is, and in `layer_types` what caches and masks make of it
    field = "mixer_types" if "mixer_types" in known else "layer_types"
    kinds = sorted(set(getattr(described.config, field, None) or ["full_attention"]))
    by_kind = {kind: {field: [kind]} if field in known else {} for kind in kinds}
    if field == "mixer_types":
        options = described.config.options
        alone = {kind: {"layer_types": None, "mlp_types": ["mlp"], "options": {}} for kind in kinds}
        by_kind = {k: by_kind[k] | alone[k] | {"options": {k: options[k]} if k in options else {}} for k in kinds}
    elif getattr(described.config, "head_shifts", None):
        by_kind = _kinds_by_head(described.config.head_shifts, values["num_attention_heads"])
    elif field not in known:
        by_kind = _kinds_by_attention(described.config, values.get("num_attention_heads", 1))
    return {kind: _seen(described.architecture, values | one, num_tokens) for kind, one in by_kind.items()}


def _kinds_by_attention(config: "PreTrainedConfig", num_heads: int) -> dict[str, dict[str, Any]]:
    """Kinds of layers where options of attention differ from layer to layer: "layers 0-1, 5" -> what one of them has.

    An option that differs from head to head is given to `num_heads` of them in turn.
    """
    num_layers = config.num_hidden_layers
    listed = {name: value for name, value in config.to_dict().items() if name.startswith("attention_")}
    listed = {name: value for name, value in listed.items() if isinstance(value, list) and len(value) == num_layers}
    if not listed:
        return {"full_attention": {}}
    layers_by_option: dict[str, list[int]] = {}
    for i in range(num_layers):
        layers_by_option.setdefault(repr([value[i] for value in listed.values()]), []).append(i)
    kinds = {}
    for layers in layers_by_option.values():
        one = {name: value[layers[0]] for name, value in listed.items()}
        one = {n: [v[i % len(v)] for i in range(num_heads)] if isinstance(v, list) else v for n, v in one.items()}
        kinds[f"layers {_ranges(layers)}"] = {name: [value] for name, value in one.items()}
    return kinds


def _kinds_by_head(shifts: list[int], num_heads: int) -> dict[str, dict[str, Any]]:
    """Kinds of heads, which together may see everything: "heads 0-9" -> `num_heads` of that kind alone."""
    heads = {shift: [h for h, other in enumerate(shifts) if other == shift] for shift in sorted(set(shifts))}
    return {f"heads {_ranges(own)}": {"head_shifts": [shift] * num_heads} for shift, own in heads.items()}


def _ranges(numbers: list[int]) -> str:
    """[0, 1, 2, 5] -> "0-2, 5"."""
    groups = [[n for _, n in group] for _, group in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{g[0]}-{g[-1]}" if len(g) > 1 else str(g[0]) for g in groups)


def _seen(architecture: Architecture, config: dict[str, Any], num_tokens: int) -> "Tensor":
    import torch

    from .modeling.base_model import embedding_size

    generator = torch.Generator().manual_seed(0)
    model = architecture.model_class("feature-extraction")(architecture.config_class(**config)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # fresh weights may be zero, which closes a path that training opens
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    # One row a query: row t is differentiated at token t, so one backward pass fills the picture.
    row = torch.randn((num_tokens, embedding_size(model.config)), generator=generator, dtype=torch.float64)
    embeddings = row.repeat(num_tokens, 1, 1).requires_grad_()
    hidden = model(inputs_embeds=embeddings).last_hidden_state  # (T, T, D)
    direction = torch.randn(hidden.shape[-1], generator=generator, dtype=torch.float64)  # a norm's outputs sum to 0
    (hidden.diagonal().mT @ direction).sum().backward()
    influence = embeddings.grad.abs().amax(-1)
    return influence > 1e-12 * influence.max()  # a convolution by FFT leaves rounding where nothing is seen
