"""Same weights, same logits: every upstream model type, opened as a zoo model and written back.

Weights are drawn anew before comparing: fresh ones are zeros and ones in all the places where a swapped name or a
missed transposition would hide.
"""

import inspect

import pytest
import torch
import transformers
from torch.testing import assert_close
from transformers.models.mamba2.modeling_mamba2 import MambaRMSNormGated

from hf_zoo.registry import ARCHITECTURES, TASKS
from hf_zoo.upstream import convert_folder, to_upstream
from hf_zoo.upstream.table import find_upstream, read_table

SIZES = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 6}
GPT_SIZES = {"n_embd": 48, "n_layer": 3, "n_head": 6, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 1}
SEP = 96


def sam_options(vision, decoder, prompts):
    """Three configs of one model, whose grid of 8 or 10 patches is no multiple of its windows."""
    size = {"image_size": vision.get("image_size", 64), "patch_size": 8}
    layers = {**SIZES, "mlp_dim": 80, "window_size": 3, "global_attn_indexes": []}
    layers.pop("intermediate_size")
    width = {"hidden_size": 24, "num_attention_heads": 3, "mlp_dim": 40, "iou_head_hidden_dim": 20}
    return {
        "vision_config": {**layers, **size, "output_channels": 24, "num_pos_feats": 12, **vision},
        "prompt_encoder_config": {"hidden_size": 24, **prompts, **size},
        "mask_decoder_config": {**width, **decoder},
    }


LONG = {"pad_token_id": 1, "sep_token_id": SEP, "max_position_embeddings": 40}
OPTIONS = {
    "llama": [
        {**SIZES, "num_key_value_heads": 2},
        {**SIZES, "head_dim": 10, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
        {**SIZES, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}},
    ],
    "mistral": [
        {**SIZES, "num_key_value_heads": 2, "sliding_window": 5},
        {**SIZES, "num_key_value_heads": 6, "sliding_window": None},
    ],
    "qwen3": [
        {**SIZES, "num_key_value_heads": 2, "head_dim": 10},
        {**SIZES, "num_key_value_heads": 6, "head_dim": 8, "attention_bias": True, "tie_word_embeddings": True},
        {
            **SIZES,
            "num_key_value_heads": 3,
            "head_dim": 8,
            "use_sliding_window": True,
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ],
    "olmo": [{**SIZES, "clip_qkv": 0.8, "pad_token_id": 0, "eos_token_id": 1}],
    "gpt2": [GPT_SIZES, {**GPT_SIZES, "n_inner": 40}],
    "gpt_bigcode": [GPT_SIZES],
    "bloom": [{"hidden_size": 48, "n_layer": 3, "n_head": 6}, {"hidden_size": 48, "n_layer": 2, "n_head": 4}],
    "bert": [SIZES],
    "roberta": [
        {**SIZES, "pad_token_id": 1, "type_vocab_size": 1, "max_position_embeddings": 40},
        {**SIZES, "pad_token_id": 0, "type_vocab_size": 2},
    ],
    "longformer": [
        {**SIZES, **LONG, "attention_window": 4},
        {**SIZES, **LONG, "attention_window": [4, 8, 16], "type_vocab_size": 1},
        {**SIZES, **LONG, "pad_token_id": 0, "attention_window": 64, "num_attention_heads": 3},
    ],
    "big_bird": [
        {**SIZES, "sep_token_id": SEP, "max_position_embeddings": 64, "attention_type": "original_full"},
        {**SIZES, "sep_token_id": SEP, "max_position_embeddings": 64, "block_size": 4, "num_random_blocks": 1},
    ],
    "albert": [
        {**SIZES, "embedding_size": 24, "num_hidden_layers": 4},
        {**SIZES, "embedding_size": 48, "num_hidden_layers": 4, "num_hidden_groups": 2, "hidden_act": "gelu"},
        {**SIZES, "embedding_size": 24, "num_hidden_layers": 3, "num_hidden_groups": 2, "inner_group_num": 2},
    ],
    "mixtral": [
        {**SIZES, "num_key_value_heads": 2, "num_local_experts": 5, "num_experts_per_tok": 3},
        {**SIZES, "num_key_value_heads": 6, "sliding_window": 5, "tie_word_embeddings": True},
        {**SIZES, "num_key_value_heads": 3, "head_dim": 10, "router_jitter_noise": 0.1, "router_aux_loss_coef": 0.5},
    ],
    "mamba": [
        {"hidden_size": 48, "num_hidden_layers": 3},
        {"hidden_size": 32, "num_hidden_layers": 2, "use_bias": True, "use_conv_bias": False, "conv_kernel": 3},
    ],
    "mamba2": [
        {"hidden_size": 48, "num_hidden_layers": 3, "head_dim": 8, "num_heads": 12, "n_groups": 3, "state_size": 16},
        {
            **{"hidden_size": 32, "num_hidden_layers": 2, "head_dim": 16, "num_heads": 4, "n_groups": 1},
            **{"use_bias": True, "use_conv_bias": False, "time_step_limit": (0.3, 0.9), "tie_word_embeddings": True},
        },
    ],
    "rwkv": [
        {"hidden_size": 48, "num_hidden_layers": 3},
        {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 80},
        {"hidden_size": 32, "num_hidden_layers": 2, "rescale_every": 0, "tie_word_embeddings": True},
    ],
}
T5_SIZES = {"d_model": 48, "d_kv": 10, "d_ff": 80, "num_layers": 3, "num_heads": 6, "decoder_start_token_id": 0}
OPTIONS["t5"] = [
    T5_SIZES,
    {**T5_SIZES, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_decoder_layers": 2},
    {**T5_SIZES, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 9, "dropout_rate": 0.2},
    {**T5_SIZES, "feed_forward_proj": "gated-silu", "layer_norm_epsilon": 0.1, "decoder_start_token_id": 5},
]
MLA_SIZES = {
    **SIZES,
    **{"kv_lora_rank": 20, "qk_nope_head_dim": 10, "qk_rope_head_dim": 6, "v_head_dim": 14, "n_shared_experts": 1},
    **{"n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 24, "first_k_dense_replace": 1},
}
YARN = {
    **{"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 16},
    **{"beta_fast": 32.0, "beta_slow": 1.0, "mscale": 0.707, "mscale_all_dim": 0.9},
}
LIMITED = {"n_group": 4, "topk_group": 2, "topk_method": "group_limited_greedy"}
OPTIONS["deepseek_v2"] = [
    {**MLA_SIZES, "q_lora_rank": None, "n_shared_experts": 2},
    {**MLA_SIZES, "q_lora_rank": 18, **LIMITED, "routed_scaling_factor": 4.0, "rope_parameters": YARN},
    {**MLA_SIZES, "q_lora_rank": 18, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
]
OPTIONS["deepseek_v3"] = [
    {**MLA_SIZES, "q_lora_rank": 18, "n_group": 4, "topk_group": 2},
    {**MLA_SIZES, "q_lora_rank": None, "n_group": 1, "topk_group": 1, "rope_interleave": False},
    {**MLA_SIZES, "q_lora_rank": 18, "n_group": 2, "topk_group": 1, "attention_bias": True, "rope_parameters": YARN},
    {**MLA_SIZES, "q_lora_rank": 18, "n_group": 2, "topk_group": 2, "norm_topk_prob": False, "num_hidden_layers": 2},
]
if "group_size" not in inspect.signature(MambaRMSNormGated.__init__).parameters:
    del OPTIONS["mamba2"][0]  # before transformers 5.23 its norm knows nothing of groups
RELATIVE = {**SIZES, "relative_attention": True, "pos_att_type": "c2p|p2c", "position_biased_input": False}
OPTIONS["deberta"] = [
    RELATIVE,
    {**RELATIVE, "max_relative_positions": 7, "pos_att_type": ["p2c"], "type_vocab_size": 2, "legacy": False},
    {**RELATIVE, "pos_att_type": "c2p", "position_biased_input": True, "embedding_size": 24},
    {**SIZES, "cls_dropout": 0.3, "pooler_hidden_act": "relu"},
]
SHARED = {"position_buckets": 6, "max_relative_positions": 16, "share_att_key": True, "norm_rel_ebd": "layer_norm"}
OPTIONS["deberta-v2"] = [
    {**RELATIVE, **SHARED},
    {**RELATIVE, **SHARED, "conv_kernel_size": 3, "conv_act": "gelu", "legacy": False, "type_vocab_size": 2},
    {**RELATIVE, "max_relative_positions": 7, "conv_kernel_size": 5, "conv_groups": 4, "embedding_size": 24},
    {**RELATIVE, "position_buckets": 8, "pos_att_type": ["p2c"], "norm_rel_ebd": "layer_norm"},
    {**RELATIVE, **SHARED, "pos_att_type": "c2p", "position_biased_input": True},
    {**SIZES, "cls_dropout": 0.3, "pooler_hidden_act": "relu"},
]
OPTIONS["sam"] = [
    sam_options(
        {"global_attn_indexes": [1]}, {"iou_head_depth": 2, "num_multimask_outputs": 2}, {"mask_input_channels": 8}
    ),
    sam_options({"window_size": 4, "qkv_bias": False, "global_attn_indexes": [0, 2]}, {"iou_head_depth": 4}, {}),
    sam_options({"image_size": 80, "hidden_act": "relu"}, {"num_hidden_layers": 3}, {"hidden_act": "relu"}),
]
VISION = {**SIZES, "image_size": 24, "patch_size": 8}
VISION_VIT = {**VISION, "encoder_stride": 8}
OPTIONS["vit"] = [
    VISION_VIT,
    {**VISION_VIT, "qkv_bias": False, "num_channels": 1, "layer_norm_eps": 0.1},
    {**VISION_VIT, "hidden_act": "relu", "image_size": 16},
]
OPTIONS["clip_vision_model"] = [VISION, {**VISION, "hidden_act": "gelu", "num_channels": 2, "layer_norm_eps": 0.1}]
OPTIONS["siglip_vision_model"] = [VISION, {**VISION, "num_channels": 2, "layer_norm_eps": 0.1}]
OPTIONS["blip_2_vision_model"] = [VISION, {**VISION, "qkv_bias": False, "layer_norm_eps": 0.1}]
TEXTS = {**SIZES, "vocab_size": 97, "max_position_embeddings": 16, "bos_token_id": 95, "pad_token_id": 0}
OPTIONS["clip"] = [
    {"vision_config": VISION, "text_config": {**TEXTS, "eos_token_id": SEP}, "projection_dim": 20},
    {"vision_config": VISION, "text_config": {**TEXTS, "eos_token_id": 2, "hidden_act": "gelu"}},
]
LLAVA_TEXT = {**SIZES, "model_type": "llama", "vocab_size": 97, "pad_token_id": 0}
LLAVA = {"vision_config": {**VISION, "model_type": "clip_vision_model"}, "text_config": LLAVA_TEXT}
LLAVA["image_token_index"] = SEP
OPTIONS["llava"] = [
    LLAVA,
    {**LLAVA, "vision_feature_layer": -1, "vision_feature_select_strategy": "full", "projector_hidden_act": "relu"},
    {**LLAVA, "vision_feature_layer": [0, -2], "multimodal_projector_bias": False, "tie_word_embeddings": True},
    {**LLAVA, "projector_hidden_act": "linear"},
    {**LLAVA, "text_config": {**LLAVA_TEXT, "model_type": "mistral", "sliding_window": 9, "num_key_value_heads": 3}},
]
TABLES = {name: upstream for a in ARCHITECTURES.values() for name, upstream in read_table(a).items()}
PAIRS = [(a, name) for a in ARCHITECTURES.values() for name, u in read_table(a).items() if not u.is_remote]
CASES = [
    pytest.param(architecture, model_type, task, options, id=f"{model_type}-{task}-{i}")
    for architecture, model_type in PAIRS
    for i, options in enumerate(OPTIONS[model_type])
    for task in architecture.all_tasks
    if task not in find_upstream(architecture, model_type).other_meaning
]


def upstream_model(model_type, task, options):
    """A model of transformers with weights from N(0, 0.15), or None where it has no such head."""
    text = {} if {"image_size", "vision_config"} & set(options) else {"vocab_size": 97, "pad_token_id": 0}
    config = transformers.AutoConfig.for_model(model_type, **{**text, **options})
    torch.manual_seed(0)
    try:
        model = TABLES[model_type].make(config, task)
    except ValueError:
        return None
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.5 if "A_log" in name else 0.0, 0.15)
            if name.endswith("qkv.bias"):
                parameter.view(3, -1)[1] = 0  # where keys would have theirs
            if "linear_2" in name and config.projector_hidden_act == "linear":
                parameter.copy_(torch.eye(len(parameter)) if parameter.ndim == 2 else torch.zeros(len(parameter)))
        for name, buffer in model.named_buffers():
            if "correction_bias" in name:
                buffer.uniform_(-0.2, 0.2)
    if not options.get("tie_word_embeddings", True) and hasattr(model, "lm_head"):
        model.all_tied_weights_keys.pop("lm_head.weight", None)  # T5 ties whatever it is told, until a file differs
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) * 0.15)
    model.tie_weights(recompute_mapping=False)
    return model.eval()


def batch(task):
    """Two rows of a question and a text with separators, the first with four pads at its end; 0 and 1 may be pads."""
    ids = torch.randint(2, SEP, (2, 13), generator=torch.Generator().manual_seed(1))
    ids[:, (4, 5, -1)] = SEP
    mask = torch.ones_like(ids)
    if task != "sequence-classification":  # upstream reads the last token by id and not by mask
        mask[0, -4:] = 0
    return ids, mask


def run_pixels(model, task):
    """The main outputs, at the image's size and at another."""
    torch.manual_seed(2)
    outputs = []
    for sides in ((model.config.image_size,) * 2, (32, 40)):
        pixels = torch.randn(2, getattr(model.config, "num_channels", 3), *sides)
        inputs = {"pixel_values": pixels, "interpolate_pos_encoding": sides[0] != model.config.image_size}
        if task == "masked-image-modeling":
            if sides[0] != sides[1]:  # upstream takes any image for a square
                continue
            inputs["bool_masked_pos"] = torch.rand(2, (sides[0] // 8) ** 2) < 0.5
        with torch.no_grad():
            output = model(**inputs, output_hidden_states=True)
        named = [output[name] for name in ("loss", "logits", "reconstruction", "last_hidden_state") if name in output]
        if output.get("pooler_output") is not None:
            named.append(output.pooler_output)
        outputs += [value.flatten() for value in (*named, *output.hidden_states)]
    return torch.cat(outputs)


def run_pairs(model):
    """Scores and the loss of images with texts."""
    ids, mask = batch("feature-extraction")
    ids[mask == 0] = 0
    with torch.no_grad():
        torch.manual_seed(3)
        output = model(ids, torch.randn(2, 3, 24, 24), mask, return_loss=True, output_hidden_states=True)
    states = (*output.text_model_output.hidden_states[:-1], *output.vision_model_output.hidden_states)
    real = [state[mask.bool()].flatten() for state in states if state.shape[1] == mask.shape[1]]
    named = (output.loss, output.logits_per_image, output.text_embeds, output.image_embeds)
    return torch.cat([*real, *(value.flatten() for value in named)])


def run(model, task):
    """The main output on real tokens, of images, or of pairs."""
    if "Sam" in type(model).__name__:
        return run_prompts(model)
    if hasattr(model.config, "image_token_id"):
        return run_prompts_with_images(model)
    if "vision_config" in model.config.sub_configs:
        return run_pairs(model)
    if model.main_input_name == "pixel_values":
        return run_pixels(model, task)
    ids, mask = batch(task)
    inputs = {"input_ids": ids, "attention_mask": mask}
    if task == "sequence-classification" and model.config.is_encoder_decoder:
        ids[:, -1] = 1  # T5 reads the last </s>
    if task in ("seq2seq-lm", "pre-training", "feature-extraction") and model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids.flip(-1)
    if task == "multiple-choice":
        inputs = {name: value[:, None].repeat(1, 2, 1) for name, value in inputs.items()}
        inputs["input_ids"][:, 1] = inputs["input_ids"][:, 1].flip(-1)
    with torch.no_grad():
        output = model(**inputs)[0]
    return output[mask.bool()] if output.shape[:2] == mask.shape else output


@torch.no_grad()
def run_prompts_with_images(model):
    """Logits, or the last hidden state, of a row with two images, a row with one and padding, and rows without."""
    torch.manual_seed(3)
    config = model.config
    each = 9 + (config.vision_feature_select_strategy == "full")
    ids = torch.randint(2, SEP, (2, 2 * each + 5))
    ids[:, 1 : 1 + each] = ids[0, 3 + each : 3 + 2 * each] = config.image_token_id
    mask = torch.ones_like(ids)
    mask[1, -3:] = 0
    outputs = [
        model(ids, torch.randn(3, 3, 24, 24), attention_mask=mask)[0][mask.bool()],
        model(ids[:, -2:])[0].flatten(0, 1),
    ]
    return torch.cat(outputs)


@torch.no_grad()
def run_prompts(model):
    """Masks and their scores for points with filling, for boxes beside points, and for a mask, in one vector."""
    generator = torch.Generator().manual_seed(1)
    side = getattr(model.config, "vision_config", model.config).image_size
    pixels = torch.randn(2, 3, side, side, generator=generator)
    points = torch.rand(2, 3, 2, 2, generator=generator) * side
    kinds = torch.tensor([[[1, 0], [0, -1], [1, -10]]]).expand(2, -1, -1)
    boxes = torch.tensor([10.0, 4, 40, 50]).expand(2, 3, -1) + points[:, :, 0].repeat(1, 1, 2) / 9
    earlier = torch.randn(2, 1, side // 2, side // 2, generator=generator) * 3
    prompts = (
        {"input_points": points, "input_labels": kinds},
        {"input_points": points, "input_labels": kinds, "input_boxes": boxes, "multimask_output": False},
        {"input_boxes": boxes, "input_masks": earlier},
        {"input_masks": earlier},
    )
    outputs = [model(pixel_values=pixels, **prompt) for prompt in prompts]
    outputs.append(model(image_embeddings=model.get_image_embeddings(pixels), **prompts[0]))
    return torch.cat([x.flatten() for o in outputs for x in (o.pred_masks, o.iou_scores)])


@pytest.mark.parametrize("architecture, model_type, task, options", CASES)
def test_same_logits_both_ways(architecture, model_type, task, options, tmp_path):
    upstream = upstream_model(model_type, task, options)
    if upstream is None:
        pytest.skip(f"{model_type} has no head for {task}")
    upstream.save_pretrained(tmp_path / "upstream")
    model = architecture.model_class(task).from_pretrained(tmp_path / "upstream").eval()
    assert_close(run(model, task), run(upstream, task), atol=1e-5, rtol=1e-4)

    again = to_upstream(model, model_type)
    assert type(again) is type(upstream)
    before, after = upstream.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    has_pooler = getattr(getattr(model, "model", model), "pooler", None) is not None
    unused = () if has_pooler else read_table(architecture)[model_type].unused
    assert [name for name in changed if not any(part in name for part in unused)] == []
    assert_close(run(again, task), run(upstream, task), atol=0, rtol=0)


@pytest.mark.parametrize("architecture, model_type", PAIRS, ids=lambda p: getattr(p, "name", p))
def test_folders_convert_both_ways(architecture, model_type, tmp_path):
    models = (
        (task, upstream_model(model_type, task, OPTIONS[model_type][0])) for task in architecture.all_tasks[::-1]
    )
    task, upstream = next((task, model) for task, model in models if model is not None)
    upstream.save_pretrained(tmp_path / "upstream")
    convert_folder(tmp_path / "upstream", tmp_path / "zoo", architecture.model_type)
    convert_folder(tmp_path / "zoo", tmp_path / "back", model_type)
    zoo = getattr(transformers, TASKS[task][0]).from_pretrained(tmp_path / "zoo").eval()
    back = type(upstream).from_pretrained(tmp_path / "back").eval()
    assert type(zoo) is architecture.model_class(task)
    assert type(back) is type(upstream)
    assert_close(run(zoo, task), run(upstream, task), atol=1e-5, rtol=1e-4)
    assert_close(run(back, task), run(upstream, task), atol=0, rtol=0)


def test_conversion_overwrites_nothing(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match="not empty"):
        convert_folder("anything", tmp_path, "zoo_llm")


def test_unreadable_folders_are_named(tmp_path):
    transformers.T5Config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'t5'.*zoo_llm reads llama"):
        ARCHITECTURES["zoo_llm"].model_class().from_pretrained(tmp_path)


def test_options_that_upstream_lacks_are_named():
    architecture = ARCHITECTURES["zoo_llm"]
    config = architecture.config_class(**SIZES, vocab_size=97, attention_softmax="off_by_one")
    with pytest.raises(ValueError, match="attention_softmax='off_by_one'"):
        to_upstream(architecture.model_class()(config), "llama")


def test_loading_leaves_no_trace(tmp_path):
    """The registration of a folder's names ends with the load: a zoo folder loads right after it."""
    upstream = upstream_model("gpt2", "causal-lm", GPT_SIZES)
    upstream.save_pretrained(tmp_path / "upstream")
    model_class = ARCHITECTURES["zoo_llm"].model_class()
    model = model_class.from_pretrained(tmp_path / "upstream")
    model.save_pretrained(tmp_path / "zoo")
    again = model_class.from_pretrained(tmp_path / "zoo").eval()
    assert_close(run(again, "causal-lm"), run(upstream, "causal-lm"), atol=1e-5, rtol=1e-4)
