"""The authors' files, written here under their names, against their equations token by token."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from hf_zoo.cli import app
from hf_zoo.upstream import convert_folder

VOCAB, D, LAYERS, N, HIDDEN = 40, 32, 2, 16, 64
HEADS = D // N
ARCHITECTURE = {4: "zoo_rwkv4", 5: "zoo_rwkv6", 6: "zoo_rwkv6", 7: "zoo_rwkv7"}


def linear(*names):
    return {f"{name}.weight": (D, D) for name in names}


def norm(*names):
    return {f"{name}.{part}": (D,) for name in names for part in ("weight", "bias")}


def block_shapes(generation):
    """Name -> shape of a block's tensors."""
    ffn = {"ffn.key.weight": (HIDDEN, D), "ffn.value.weight": (D, HIDDEN)}
    shapes = {**norm("ln1", "ln2"), **linear("att.receptance", "att.key", "att.value", "att.output"), **ffn}
    channel = (1, 1, D)
    if generation < 7:
        shapes |= linear("ffn.receptance")
    if generation > 4:
        shapes |= norm("att.ln_x")
    if generation in (5, 6):
        shapes |= {**linear("att.gate"), "att.time_faaaa": (HEADS, N)}
    if generation == 4:
        shapes |= {"att.time_decay": (D,), "att.time_first": (D,)}
        shapes |= {f"att.time_mix_{m}": channel for m in "kvr"} | {f"ffn.time_mix_{m}": channel for m in "kr"}
    elif generation == 5:
        shapes |= {"att.time_decay": (HEADS, N)}
        shapes |= {f"att.time_mix_{m}": channel for m in "kvrg"} | {f"ffn.time_mix_{m}": channel for m in "kr"}
    elif generation == 6:
        shapes |= {f"att.time_maa_{m}": channel for m in "xwkvrg"} | {f"ffn.time_maa_{m}": channel for m in "kr"}
        shapes |= {"att.time_maa_w1": (D, 5 * 4), "att.time_maa_w2": (5, 4, D)}
        shapes |= {"att.time_decay": channel, "att.time_decay_w1": (D, 6), "att.time_decay_w2": (6, D)}
    else:
        shapes |= {f"att.x_{m}": channel for m in "rwkvag"} | {"ffn.x_k": channel}
        for x, rank in {"w": 5, "a": 6, "v": 7, "g": 8}.items():
            shapes |= {f"att.{x}1": (D, rank), f"att.{x}2": (rank, D)}
            shapes |= {} if x == "g" else {f"att.{x}0": channel}
        shapes |= {"att.k_k": channel, "att.k_a": channel, "att.r_k": (HEADS, N)}
    return shapes


def state_dict(generation, dtype=torch.float32):
    generator = torch.Generator().manual_seed(generation)
    shapes = {"emb.weight": (VOCAB, D), **norm("ln_out", "blocks.0.ln0"), "head.weight": (VOCAB, D)}
    for layer in range(LAYERS):
        shapes |= {f"blocks.{layer}.{name}": shape for name, shape in block_shapes(generation).items()}
    return {name: (torch.randn(shape, generator=generator) * 0.4).to(dtype) for name, shape in shapes.items()}


class Reference:
    """The authors' equations, one row, token by token, in float64."""

    def __init__(self, generation, weights):
        self.generation, self.w = generation, {name: value.double() for name, value in weights.items()}

    def norm(self, x, name):
        return F.layer_norm(x, (D,), self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def logits(self, ids):
        x = self.norm(self.w["emb.weight"][ids], "blocks.0.ln0")
        self.v_first = None
        for layer in range(LAYERS):
            self.block = {n.removeprefix(f"blocks.{layer}."): v for n, v in self.w.items() if f"blocks.{layer}." in n}
            x = x + self.time_mix(self.norm(x, f"blocks.{layer}.ln1"))
            x = x + self.channel_mix(self.norm(x, f"blocks.{layer}.ln2"))
        return self.norm(x, "ln_out") @ self.w["head.weight"].T

    def shifted(self, x, part, name):
        """The mix in each generation's own words."""
        before = torch.cat((torch.zeros_like(x[:1]), x[:-1]))
        if self.generation in (4, 5):
            mu = self.block[f"{part}.time_mix_{name}"][0, 0]
            return x * mu + before * (1 - mu)
        prefix = "x" if self.generation == 7 else "time_maa"
        share = self.block[f"{part}.{prefix}_{name}"][0, 0]
        if self.generation == 6 and part == "att" and name != "x":
            i = "wkvrg".index(name)
            hidden = torch.tanh(self.shifted(x, part, "x") @ self.block["att.time_maa_w1"])[:, 4 * i : 4 * i + 4]
            share = share + hidden @ self.block["att.time_maa_w2"][i]
        return x + (before - x) * share

    def channel_mix(self, x):
        b = self.block
        y = torch.relu(self.shifted(x, "ffn", "k") @ b["ffn.key.weight"].T) ** 2 @ b["ffn.value.weight"].T
        if self.generation == 7:
            return y
        return torch.sigmoid(self.shifted(x, "ffn", "r") @ b["ffn.receptance.weight"].T) * y

    def time_mix(self, x):
        b = self.block
        r = self.shifted(x, "att", "r") @ b["att.receptance.weight"].T
        k = self.shifted(x, "att", "k") @ b["att.key.weight"].T
        v = self.shifted(x, "att", "v") @ b["att.value.weight"].T
        y = {4: self.wkv4, 5: self.wkv56, 6: self.wkv56, 7: self.wkv7}[self.generation](x, r, k, v)
        return y @ b["att.output.weight"].T

    def wkv4(self, x, r, k, v):
        w, u = -torch.exp(self.block["att.time_decay"]), self.block["att.time_first"]
        top = bottom = torch.zeros(D, dtype=torch.float64)
        out = []
        for t in range(len(x)):
            now = torch.exp(u + k[t])
            out.append((top + now * v[t]) / (bottom + now))
            top = torch.exp(w) * top + torch.exp(k[t]) * v[t]
            bottom = torch.exp(w) * bottom + torch.exp(k[t])
        return torch.sigmoid(r) * torch.stack(out)

    def wkv56(self, x, r, k, v):
        b, d = self.block, self.block["att.time_decay"].flatten().expand(len(x), D)
        if self.generation == 6:
            d = d + torch.tanh(self.shifted(x, "att", "w") @ b["att.time_decay_w1"]) @ b["att.time_decay_w2"]
        w = torch.exp(-torch.exp(d)).view(-1, HEADS, N, 1)
        r, k, v = (z.view(-1, HEADS, N) for z in (r, k, v))
        state, out = torch.zeros(HEADS, N, N, dtype=torch.float64), []
        for t in range(len(x)):
            new = k[t][..., None] * v[t][:, None]
            out.append((r[t][:, None] @ (state + b["att.time_faaaa"][..., None] * new))[:, 0])
            state = w[t] * state + new
        y, eps = torch.stack(out).view(-1, D), 64e-5
        if self.generation == 5:
            y, eps = y / 8, 1e-5
        y = F.group_norm(y, HEADS, b["att.ln_x.weight"], b["att.ln_x.bias"], eps)
        return y * F.silu(self.shifted(x, "att", "g") @ b["att.gate.weight"].T)

    def wkv7(self, x, r, k, v):
        b = self.block

        def network(name, activation):
            hidden = activation(self.shifted(x, "att", name) @ b[f"att.{name}1"])
            return b.get(f"att.{name}0", torch.zeros(1))[..., :].flatten() + hidden @ b[f"att.{name}2"]

        w = torch.exp(-math.exp(-0.5) * torch.sigmoid(network("w", torch.tanh)))
        a = torch.sigmoid(network("a", lambda z: z))
        g = torch.sigmoid(self.shifted(x, "att", "g") @ b["att.g1"]) @ b["att.g2"]
        if self.v_first is None:
            self.v_first = v
        else:
            v = v + (self.v_first - v) * torch.sigmoid(network("v", lambda z: z))
        kappa = F.normalize((k * b["att.k_k"].flatten()).view(-1, HEADS, N), dim=-1)
        k = k * (1 + (a - 1) * b["att.k_a"].flatten())
        r, w, k, v, a = (z.view(-1, HEADS, N) for z in (r, w, k, v, a))
        state, out = torch.zeros(HEADS, N, N, dtype=torch.float64), []  # (value, key), as in the paper
        for t in range(len(x)):
            removed = state @ -kappa[t][..., None] @ (kappa[t] * a[t])[:, None]
            state = state * w[t][:, None] + removed + v[t][..., None] @ k[t][:, None]
            out.append((state @ r[t][..., None])[..., 0])
        y = F.group_norm(torch.stack(out).view(-1, D), HEADS, b["att.ln_x.weight"], b["att.ln_x.bias"], 64e-5)
        return (y + ((r * k * b["att.r_k"]).sum(-1, keepdim=True) * v).view(-1, D)) * g


@pytest.mark.parametrize("generation", [4, 5, 6, 7])
def test_same_logits_as_the_authors_equations(generation, tmp_path):
    weights = state_dict(generation)
    torch.save(weights, tmp_path / "model.pth")
    convert_folder(str(tmp_path / "model.pth"), str(tmp_path / "zoo"), ARCHITECTURE[generation])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "zoo", dtype=torch.float32).eval().double()
    assert model.config.model_type == ARCHITECTURE[generation]
    assert (model.config.num_hidden_layers, model.config.intermediate_size) == (LAYERS, HIDDEN)
    ids = torch.randint(VOCAB, (1, 21), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        got = model(ids).logits[0]
    # a mix that is stored as its complement has been rounded to float32
    assert_close(got, Reference(generation, weights).logits(ids[0]), atol=1e-5, rtol=1e-5)


def test_precision_is_that_of_the_file(tmp_path):
    torch.save(state_dict(7, torch.bfloat16), tmp_path / "model.pth")
    result = CliRunner().invoke(
        app, ["convert", str(tmp_path / "model.pth"), str(tmp_path / "zoo"), "--to", "zoo_rwkv7"]
    )
    assert result.exit_code == 0, result.output
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "zoo")
    mixer = model.model.layers[1].mixer
    assert (mixer.k_proj.weight.dtype, mixer.decay.bias.dtype) == (torch.bfloat16, torch.float32)


def test_another_generation_is_named(tmp_path):
    torch.save(state_dict(6), tmp_path / "model.pth")
    with pytest.raises(ValueError, match="holds RWKV-6: convert it --to zoo_rwkv6, not zoo_rwkv7"):
        convert_folder(str(tmp_path / "model.pth"), str(tmp_path / "zoo"), "zoo_rwkv7")


def test_files_of_something_else_are_named(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"wte.weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="no state dict of RWKV-4, RWKV-5, RWKV-6, RWKV-7.*wte.weight"):
        convert_folder(str(path), str(tmp_path / "zoo"), "zoo_rwkv7")
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="holds a list and no dictionary of tensors"):
        convert_folder(str(path), str(tmp_path / "zoo"), "zoo_rwkv7")
    path.write_text("not a file of torch")
    with pytest.raises(ValueError, match="is no file of weights"):
        convert_folder(str(path), str(tmp_path / "zoo"), "zoo_rwkv7")


class Code:
    """What a file may not bring: anything but tensors."""


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save({"emb.weight": Code()}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match="is no file of weights"):
        convert_folder(str(tmp_path / "model.pth"), str(tmp_path / "zoo"), "zoo_rwkv7")


def test_missing_and_misshapen_weights_are_named(tmp_path):
    weights = state_dict(7)
    lost = {name: value for name, value in weights.items() if name != "blocks.1.att.k_a"}
    torch.save(lost, tmp_path / "model.pth")
    with pytest.raises(ValueError, match="lacks the weight of 'model.layers.1.mixer.k_a'"):
        convert_folder(str(tmp_path / "model.pth"), str(tmp_path / "zoo"), "zoo_rwkv7")
    torch.save({**weights, "ln_out.bias": torch.zeros(3)}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"'model.norm.bias' is \(3,\) and not \(32,\)"):
        convert_folder(str(tmp_path / "model.pth"), str(tmp_path / "zoo"), "zoo_rwkv7")
