"""Modules of further tokens of a DeepSeek-V3 folder, whose weights transformers' own class leaves in the file."""

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from torch.testing import assert_close
from transformers.modeling_layers import MtpModel
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3DecoderLayer, DeepseekV3RMSNorm

from hf_zoo.modeling.mla.modeling_mla import ZooMlaForCausalLM, ZooMlaForTokenClassification, ZooMlaModel
from hf_zoo.upstream import convert_folder, to_upstream

LAYERS, EXPERTS, WIDTH = 2, 4, 24
SIZES = {
    **{"vocab_size": 61, "hidden_size": WIDTH, "intermediate_size": 40, "num_hidden_layers": LAYERS},
    **{"num_attention_heads": 4, "num_key_value_heads": 4, "kv_lora_rank": 10, "q_lora_rank": 12},
    **{"qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 8, "n_routed_experts": EXPERTS},
    **{"num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 2, "topk_group": 1},
    **{"first_k_dense_replace": 1, "pad_token_id": 0},
}


def published_layer(shared):
    """Weights of one module as they are published, each expert on its own, with copies of what is shared."""
    shapes = {"enorm": (WIDTH,), "hnorm": (WIDTH,), "eh_proj": (WIDTH, 2 * WIDTH), "shared_head.norm": (WIDTH,)}
    shapes |= {"input_layernorm": (WIDTH,), "post_attention_layernorm": (WIDTH,)}
    shapes |= {"self_attn.q_a_proj": (12, WIDTH), "self_attn.q_a_layernorm": (12,), "self_attn.q_b_proj": (40, 12)}
    shapes |= {"self_attn.kv_a_proj_with_mqa": (14, WIDTH), "self_attn.kv_a_layernorm": (10,)}
    shapes |= {"self_attn.kv_b_proj": (56, 10), "self_attn.o_proj": (WIDTH, 32), "mlp.gate": (EXPERTS, WIDTH)}
    for one in ("shared_experts", *(f"experts.{e}" for e in range(EXPERTS))):
        shapes |= {f"mlp.{one}.{name}_proj": (16, WIDTH) for name in ("gate", "up")}
        shapes[f"mlp.{one}.down_proj"] = (WIDTH, 16)
    layer = {f"{name}.weight": torch.randn(shape) * 0.3 for name, shape in shapes.items()}
    layer["mlp.gate.e_score_correction_bias"] = torch.rand(EXPERTS) - 0.5
    layer["embed_tokens.weight"] = shared["model.embed_tokens.weight"].clone()
    layer["shared_head.head.weight"] = shared["lm_head.weight"].clone()
    return layer


@pytest.fixture
def folder(tmp_path):
    """A folder with two modules of further tokens; and the path of one that transformers saved without them."""
    torch.manual_seed(0)
    config = transformers.DeepseekV3Config(**SIZES, num_nextn_predict_layers=2)
    model = transformers.DeepseekV3ForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    model.save_pretrained(tmp_path / "without")
    model.save_pretrained(tmp_path / "with")
    weights = load_file(tmp_path / "with" / "model.safetensors")
    for depth in range(2):
        layer = published_layer(weights)
        weights |= {f"model.layers.{LAYERS + depth}.{name}": value for name, value in layer.items()}
    save_file(weights, tmp_path / "with" / "model.safetensors", {"format": "pt"})
    return tmp_path


def by_equation(upstream, weights, hidden, tokens, depth):
    """The hidden state after the modules up to a depth, in float64, with transformers' decoder layer."""
    for d in range(1, depth + 1):
        prefix = f"model.layers.{LAYERS + d - 1}."
        own = {n.removeprefix(prefix): w.double() for n, w in weights.items() if n.startswith(prefix)}
        experts = [
            [own.pop(f"mlp.experts.{e}.{n}_proj.weight") for e in range(EXPERTS)] for n in ("gate", "up", "down")
        ]
        own["mlp.experts.gate_up_proj"] = torch.cat([torch.stack(group) for group in experts[:2]], 1)
        own["mlp.experts.down_proj"] = torch.stack(experts[2])

        def norm(x, name, own=own):
            module = DeepseekV3RMSNorm(WIDTH, upstream.config.rms_norm_eps).double()
            module.weight = torch.nn.Parameter(own.pop(f"{name}.weight"))
            return module(x)

        embedded = F.embedding(tokens[:, d:], own.pop("embed_tokens.weight"))
        w_e, w_h = own.pop("eh_proj.weight").chunk(2, dim=1)  # the file has the embedding first
        x = norm(hidden[:, :-1], "hnorm") @ w_h.T + norm(embedded, "enorm") @ w_e.T
        head, after = own.pop("shared_head.head.weight"), own.pop("shared_head.norm.weight")
        layer = DeepseekV3DecoderLayer(upstream.config, LAYERS + d - 1).double().eval()
        layer.load_state_dict(own)
        length = x.shape[1]
        mask = torch.full((length, length), -torch.inf, dtype=x.dtype).triu(1)[None, None]
        turns = upstream.model.rotary_emb(x, torch.arange(length)[None])
        hidden = norm(layer(x, attention_mask=mask, position_embeddings=turns), "own", {"own.weight": after})
    return hidden @ head.T


@torch.no_grad()
def test_the_modules_of_a_published_folder_follow_the_equation(folder):
    model = ZooMlaForCausalLM.from_pretrained(folder / "with").double().eval()
    assert model.config.num_nextn_predict_layers == len(model.mtp) == 2
    upstream = transformers.DeepseekV3ForCausalLM.from_pretrained(folder / "without").double().eval()
    upstream.set_attn_implementation("eager")
    upstream.set_experts_implementation("eager")
    weights = load_file(folder / "with" / "model.safetensors")
    tokens = torch.randint(1, 61, (2, 11))
    hidden = upstream.model(tokens).last_hidden_state
    inputs = {"input_ids": tokens, "inputs_embeds": None, "attention_mask": None, "position_ids": None}
    seen = []
    model.lm_head.register_forward_hook(lambda head, given, logits: seen.append(logits))
    losses = model.further_losses(model.model(tokens).last_hidden_state, tokens[:, 1:], None, **inputs)
    for depth, (loss, logits) in enumerate(zip(losses, seen, strict=True), start=1):
        expected = by_equation(upstream, weights, hidden, tokens, depth)
        assert_close(logits, expected, atol=1e-6, rtol=1e-6)  # routers compute in float32
        asked = F.cross_entropy(expected[:, :-1].flatten(0, 1), tokens[:, depth + 1 :].flatten())
        assert_close(loss.double(), asked, atol=1e-6, rtol=1e-6)


def test_they_are_written_back_bit_by_bit_with_what_they_share(folder):
    convert_folder(folder / "with", folder / "zoo", "zoo_mla")
    convert_folder(folder / "zoo", folder / "back", "deepseek_v3")
    before, after = (load_file(folder / name / "model.safetensors") for name in ("with", "back"))
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    again = transformers.DeepseekV3Config.from_pretrained(folder / "back")
    assert again.num_nextn_predict_layers == 2


@torch.no_grad()
def test_transformers_drafts_with_what_is_written(folder):
    model = ZooMlaForCausalLM.from_pretrained(folder / "with").eval()
    to_upstream(model).save_pretrained(folder / "back")
    upstream = transformers.DeepseekV3ForCausalLM.from_pretrained(folder / "back").eval()
    upstream._keys_to_ignore_on_load_unexpected = [rf"model\.layers\.{LAYERS}.*", rf"model\.layers\.{LAYERS + 1}.*"]
    drafter = MtpModel.from_pretrained(upstream, device_map={"": "cpu"}).eval()
    for ours, theirs in zip(model.mtp, drafter.layers, strict=True):
        hidden, embedded = torch.randn(2, 1, WIDTH), torch.randn(2, 1, WIDTH)
        turns = model.model.rotary_emb(hidden, torch.zeros(1, 1, dtype=torch.long))
        expected = theirs(embedded, hidden, turns, None, None, None)
        assert_close(ours(hidden, embedded, None, position_embeddings=turns)[0], expected, atol=1e-5, rtol=1e-4)


def test_folders_without_them_load_without(folder):
    whole = transformers.DeepseekV3ForCausalLM.from_pretrained(folder / "without")
    assert whole.config.num_nextn_predict_layers == 2  # what transformers keeps in the config, and not in the file
    model, info = ZooMlaForCausalLM.from_pretrained(folder / "without", output_loading_info=True)
    assert model.config.num_nextn_predict_layers == len(model.mtp) == 0
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert set(to_upstream(model).state_dict()) == set(whole.state_dict())
    asked = ZooMlaForCausalLM.from_pretrained(folder / "without", num_nextn_predict_layers=1)
    assert len(asked.mtp) == 1  # a new module, as a new head would be


def test_other_heads_leave_them_alone_and_shards_are_looked_through(folder):
    _, info = ZooMlaModel.from_pretrained(folder / "with", output_loading_info=True)
    assert not info["missing_keys"] and info["unexpected_keys"] == {"lm_head.weight"}
    labelled = ZooMlaForTokenClassification.from_pretrained(folder / "with")
    written = to_upstream(labelled)
    assert not any(f"layers.{LAYERS}." in name for name in written.state_dict())
    whole = ZooMlaForCausalLM.from_pretrained(folder / "with")
    to_upstream(whole).save_pretrained(folder / "shards", max_shard_size="20KB")
    assert (folder / "shards" / "model.safetensors.index.json").exists()
    again = ZooMlaForCausalLM.from_pretrained(folder / "shards")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())
