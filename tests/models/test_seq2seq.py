"""What is special about the encoder-decoder: the stack of 2017 and that of T5, half precision, files, reversal."""

import pytest
import torch
import transformers
from torch import nn
from torch.testing import assert_close

import hf_zoo
from hf_zoo.claims import train
from hf_zoo.registry import ARCHITECTURES

VANILLA = {
    **{"block_layout": "post", "norm": "layer_norm", "positions": "sinusoidal", "attention_scaling": None},
    **{"attention_bias": True, "mlp_bias": True, "embedding_multiplier": 8.0, "logit_multiplier": 1.0},
}
DRY = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}


def make(task=None, **options):
    torch.manual_seed(0)
    model = hf_zoo.create_model("seq2seq-tiny", task, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def ids(rows=2, tokens=10, seed=1):
    return torch.randint(5, 512, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def copy_attention(theirs, ours):
    parts = (ours.q_proj, ours.k_proj, ours.v_proj)
    theirs.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
    theirs.in_proj_bias.copy_(torch.cat([p.bias for p in parts]))
    theirs.out_proj.load_state_dict(ours.o_proj.state_dict())


@torch.no_grad()
def test_the_transformer_of_2017_is_torchs():
    """torch's own layers between our embeddings give the same hidden states."""
    model = make(**VANILLA, norm_eps=1e-5)
    shape = {"d_model": 64, "nhead": 4, "dim_feedforward": 128, "dropout": 0.0, "batch_first": True}
    theirs = nn.Transformer(num_encoder_layers=2, num_decoder_layers=2, **shape).eval()
    stacks = ((theirs.encoder, model.model.encoder), (theirs.decoder, model.model.decoder))
    for stack, own in stacks:
        stack.norm = None
        for layer, block in zip(stack.layers, own.layers, strict=True):
            copy_attention(layer.self_attn, block.self_attn)
            layer.linear1.load_state_dict(block.mlp.up_proj.state_dict())
            layer.linear2.load_state_dict(block.mlp.down_proj.state_dict())
            norms = [block.mixer_norm, block.mlp_norm]
            if own is model.model.decoder:
                copy_attention(layer.multihead_attn, block.cross_attn)
                norms.insert(1, block.cross_norm)
            for i, norm in enumerate(norms, 1):
                getattr(layer, f"norm{i}").load_state_dict(norm.state_dict())

    def embed(tokens):
        positions, even = torch.arange(tokens.shape[1])[:, None], torch.arange(0, 64, 2)
        angles = positions / 10000 ** (even / 64)
        table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)
        return model.get_input_embeddings()(tokens) * 8.0 + table

    source, target = ids(), ids(tokens=7, seed=2)
    mask = torch.ones_like(source)
    mask[0, 6:] = 0
    causal = nn.Transformer.generate_square_subsequent_mask(7)
    padding = {"src_key_padding_mask": ~mask.bool(), "memory_key_padding_mask": ~mask.bool()}
    expected = theirs(embed(source), embed(target), tgt_mask=causal, **padding)
    got = model.model(source, mask, target).last_hidden_state
    assert_close(got, expected, atol=2e-5, rtol=1e-4)
    assert_close(
        model(source, mask, target).logits, expected @ model.get_input_embeddings().weight.T, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("options", [{}, VANILLA], ids=["T5", "2017"])
def test_initial_weights_keep_the_variance(options):
    """Variance 1 through embeddings and norms, logits of the order of 1."""
    torch.manual_seed(0)
    size = {"hidden_size": 256, "num_attention_heads": 8, "head_dim": 32, "intermediate_size": 512}
    scale = {"embedding_multiplier": 16.0} if options else {}
    model = hf_zoo.create_model("seq2seq-tiny", **{**options, **size, **scale}).eval()
    block = model.model.decoder.layers[0]
    keys = 256**-0.5
    assert_close(block.self_attn.k_proj.weight.std().item(), keys, rtol=0.05, atol=0)
    assert_close(block.self_attn.q_proj.weight.std().item(), keys * (1 if options else 32**-0.5), rtol=0.05, atol=0)
    assert_close(block.mlp.down_proj.weight.std().item(), 512**-0.5, rtol=0.05, atol=0)
    assert_close(model.get_input_embeddings().weight.std().item(), 1 / 16 if options else 1.0, rtol=0.05, atol=0)
    if not options:
        assert_close(model.model.encoder.relative_bias.weight.std().item(), keys, rtol=0.3, atol=0)
    with torch.no_grad():
        assert 0.3 < model(ids()).logits.std() < 3


@torch.no_grad()
def test_all_layers_of_a_stack_share_one_bias():
    model = make("feature-extraction")
    names = [name for name, _ in model.named_parameters() if "relative_bias" in name]
    assert names == ["encoder.relative_bias.weight", "decoder.relative_bias.weight"]
    model.set_attn_implementation("eager")
    before = model(ids(), output_attentions=True)
    model.decoder.relative_bias.weight[0] += 5.0  # a token's own place, and what a causal token cannot see
    after = model(ids(), output_attentions=True)
    for layer in range(2):
        assert (after.decoder_attentions[layer] - before.decoder_attentions[layer]).abs().max() > 0.1
    assert_close(after.cross_attentions[0].sum(-1), before.cross_attentions[0].sum(-1))
    assert torch.equal(after.encoder_last_hidden_state, before.encoder_last_hidden_state)


@torch.no_grad()
def test_a_decoder_may_be_shorter_than_its_encoder():
    model = make(decoder_layers=1)
    assert len(model.model.decoder.layers) == 1
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    expected = model.generate(ids(), **options, use_cache=False)
    assert torch.equal(model.generate(ids(), **options), expected)
    assert torch.equal(model.generate(ids(), **options, cache_implementation="static", disable_compile=True), expected)
    assert make(num_decoder_layers=1).config.decoder_layers == 1


@torch.no_grad()
def test_half_precision_keeps_the_widest_sums_in_float32(tmp_path):
    """Hidden units of T5 whose sums exceed 65504: not when a folder is opened, and clamped after `.half()`."""
    model = make()
    for block in (*model.model.encoder.layers, *model.model.decoder.layers):
        block.mlp.down_proj.weight.mul_(3e4)
    expected = model(ids()).logits
    model.save_pretrained(tmp_path)
    wide = type(model).from_pretrained(tmp_path, dtype=torch.float16).eval()
    assert wide.model.encoder.layers[0].mlp.down_proj.weight.dtype == torch.float32
    assert wide.model.encoder.layers[0].mlp.up_proj.weight.dtype == torch.float16
    got = wide(ids()).logits
    assert got.dtype == torch.float16
    assert (got.float() - expected).abs().mean() < 0.02 * expected.abs().mean()
    assert model.half()(ids()).logits.isfinite().all()


def test_a_new_t5_1_1_opens_with_tied_scores(tmp_path):
    """transformers ties them whatever the config says, and writes no scores."""
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 64}
    theirs = transformers.T5ForConditionalGeneration(
        transformers.T5Config(**sizes, tie_word_embeddings=False, decoder_start_token_id=0)
    ).eval()
    theirs.save_pretrained(tmp_path)
    ours = ARCHITECTURES["zoo_seq2seq"].model_class().from_pretrained(tmp_path).eval()
    assert ours.config.tie_word_embeddings
    assert ours.lm_head.weight is ours.get_input_embeddings().weight
    tokens = ids() % 64
    with torch.no_grad():
        assert_close(ours(tokens, labels=tokens).logits, theirs(tokens, labels=tokens).logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("how", [{}, {"num_beams": 3}])
@torch.no_grad()
def test_generation_is_t5s(tmp_path, how):
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 64}
    theirs = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, decoder_start_token_id=0)).eval()
    for parameter in theirs.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.2)
    theirs.save_pretrained(tmp_path)
    ours = ARCHITECTURES["zoo_seq2seq"].model_class().from_pretrained(tmp_path).eval()
    tokens = 2 + ids(tokens=40) % 62
    mask = torch.ones_like(tokens)
    mask[0, :5], mask[1, -7:] = 0, 0
    options = {"attention_mask": mask, "max_new_tokens": 40, "do_sample": False, **how}
    assert torch.equal(ours.generate(tokens, **options), theirs.generate(tokens, **options))


@torch.no_grad()
def test_untied_scores_stay_apart(tmp_path):
    model = make(tie_word_embeddings=False)
    assert model.config.logit_multiplier == 1.0
    model.resize_token_embeddings(520)
    assert model.lm_head.weight.shape == model.get_input_embeddings().weight.shape == (520, 64)
    assert model.lm_head.weight is not model.get_input_embeddings().weight
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    assert_close(again(ids()).logits, model(ids()).logits)


@torch.no_grad()
def test_the_encoder_opens_folders_of_the_whole(tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    encoder = transformers.AutoModelForTextEncoding.from_pretrained(tmp_path).eval()
    expected = model(ids()).encoder_last_hidden_state
    assert_close(encoder(ids()).last_hidden_state, expected)


def test_pre_training_adds_both_losses():
    model, tokens, tags = make("pre-training"), ids(), torch.tensor([[1, 0, -100, 1, 0, 0, 0, 1, 1, -100]] * 2)
    written, both = model(tokens, labels=tokens).loss, model(tokens, labels=tokens, tag_labels=tags).loss
    tagged = model(tokens, tag_labels=tags).loss
    assert_close(both, written + tagged)
    scores, real = model.tag(tokens), tags != -100
    expected = nn.functional.binary_cross_entropy_with_logits(scores[real], tags[real].float())
    assert_close(tagged, expected)
    assert_close(model(tokens, tag_labels=tags, return_dict=False)[0], expected)
    assert model(tokens).loss is None


def test_packed_targets_need_packed_sources():
    positions = torch.tensor([[0, 1, 2, 0, 1]])
    with pytest.raises(ValueError, match="position_ids"):
        make()(ids(1, 5), decoder_input_ids=ids(1, 5), decoder_position_ids=positions)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"relative_attention_num_buckets": 6}, "multiple of 4, got 6"),
        ({"relative_attention_max_distance": 16}, "more than half of relative_attention_num_buckets=32, got 16"),
        ({"decoder_layers": 0}, "decoder_layers must be at least 1, got 0"),
        ({"hidden_act": "rectifier"}, "'rectifier'"),
    ],
)
def test_wrong_configs_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        hf_zoo.create_config("seq2seq-tiny", **wrong)


@pytest.mark.slow
@pytest.mark.parametrize("options, steps", [({"initializer_range": 0.3}, 1500), (VANILLA, 600)], ids=["T5", "2017"])
def test_reversal_is_learnt(options, steps):
    """A target that reads the source backwards: every step must look elsewhere in it. T5's own initial weights are
    for Adafactor; Adam moves them too slowly."""
    torch.manual_seed(0)
    model = hf_zoo.create_model("seq2seq-tiny", **{**options, "vocab_size": 24, **DRY})

    def reversal(generator):
        source = torch.randint(3, 24, (6,), generator=generator)
        return {"input_ids": source, "labels": source.flip(0)}

    train(model, reversal, steps=steps, learning_rate=3e-3, batch_size=32)
    source = torch.randint(3, 24, (64, 6), generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        written = model.generate(source, max_new_tokens=6, do_sample=False, eos_token_id=None)[:, 1:]
    assert (written == source.flip(1)).float().mean() > 0.9
