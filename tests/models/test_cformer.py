"""What is special to the C-Former: padding, other encoders, the losses, the adaptor, frozen ears, that it learns."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import BertConfig, BertModel, HubertConfig, WhisperConfig

import hf_zoo
from hf_zoo.modeling.layers.integrate_and_fire import integrate_and_fire, scale_weights


def built(task="feature-extraction", **fields):
    torch.manual_seed(0)
    model = hf_zoo.create_model("cformer-tiny", task, **fields)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval().double()


def spectra(frames=40, rows=2):
    return torch.randn(rows, frames, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padding_changes_nothing(side):
    model, x = built(), spectra()
    expected = model(x)
    noise = spectra(16) * 9
    parts = (noise, x) if side == "left" else (x, noise)
    mask = torch.cat([torch.full(p.shape[:2], int(p is x)) for p in parts], 1)
    got = model(torch.cat(parts, 1), mask)
    assert torch.equal(got.token_mask, expected.token_mask)
    real = expected.token_mask.bool()
    assert_close(got.last_hidden_state[real], expected.last_hidden_state[real], atol=1e-6, rtol=1e-5)
    assert_close(got.quantities, expected.quantities)


@torch.no_grad()
def test_it_is_its_equations():
    model, x = built(), spectra()
    counts = torch.tensor([4, 2])
    out = model(x, num_tokens=counts)
    h = model.in_proj(model.encoder(x).last_hidden_state.unflatten(1, (10, 8)).mean(2))
    inner = F.relu(F.conv1d(F.pad(h.mT, (1, 1)), model.weights.conv.weight, model.weights.conv.bias))
    a = model.weights.score(inner.mT)[..., 0].sigmoid()
    assert_close(out.quantities.double(), a.sum(-1), atol=1e-6, rtol=1e-6)
    tokens = integrate_and_fire(h, scale_weights(a, counts), 4)
    y = model.adaptor(inputs_embeds=F.relu(model.adaptor_proj(tokens)), attention_mask=out.token_mask)
    real = out.token_mask.bool()
    expected = F.relu(model.out_proj(y.last_hidden_state))
    assert real.sum(-1).tolist() == [4, 2]
    assert_close(out.last_hidden_state[real], expected[real], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_loss_is_its_equation():
    model, x = built("automatic-speech-recognition"), spectra()
    many, few = [7, 9, 8, 7, 9, 8, 7, 9], [5, 5]
    labels = torch.tensor([many, few + [-100] * 6])
    out = model(x, labels=labels)
    assert out.quantities[0] < 8 and out.quantities[1] > 2  # too little and too much
    expected = (out.quantities - torch.tensor([8, 2])).abs().sum()
    for row, tokens, target in zip(out.logits, out.token_logits, (many, few), strict=True):
        words = -tokens.log_softmax(-1)
        expected = expected + sum(words[u, word] for u, word in enumerate(target))
        frames = row.log_softmax(-1)[:, None]
        expected = expected + 0.5 * F.ctc_loss(frames, torch.tensor([target]), (10,), (len(target),), reduction="sum")
    assert_close(out.loss.double(), expected / 10, atol=1e-5, rtol=1e-5)
    assert_close(model(x, labels=labels, num_items_in_batch=20).loss, out.loss / 2)


@torch.no_grad()
def test_rows_may_have_transcripts_of_any_padded_width():
    model, x = built("automatic-speech-recognition"), spectra()
    narrow = torch.tensor([[7, 9, 8], [5, 5, -100]])
    assert_close(model(x, labels=F.pad(narrow, (0, 4), value=-100)).loss, model(x, labels=narrow).loss)
    with pytest.raises(ValueError, match="a row of labels has no word"):
        model(x, labels=torch.tensor([[7, 9], [-100, -100]]))


WAVES = {"conv_dim": (16, 16), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_feat_extract_layers": 2}
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
OTHERS = {
    "hubert": HubertConfig(**SMALL, **WAVES, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2),
    "whisper": WhisperConfig(
        **{"d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 48},
        **{"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 48},
    ),
}


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_any_acoustic_encoder_fits(name, tmp_path):
    model = hf_zoo.create_model("cformer-tiny", encoder_config=OTHERS[name], adaptor_config=None)
    inputs = {"hubert": torch.randn(2, 700), "whisper": torch.randn(2, 80, 3000)}[name]
    mask = None
    if name == "hubert":
        mask = torch.ones(2, 700, dtype=torch.long)
        mask[1, 400:] = 0
        heard = model.model(inputs, mask)
        assert heard.frame_mask.sum(-1).tolist() == [69, 39]
    told = model.eval()(inputs, mask, output_hidden_states=True).hidden_states
    assert len(told) == 2 and told[-1].shape[-1] == 32
    loss = model.train()(inputs, mask, labels=torch.tensor([[7, 9, 8], [5, 6, -100]])).loss
    loss.backward()
    assert model.model.weights.score.weight.grad.abs().max() > 0
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    with torch.no_grad():
        assert_close(again.eval()(inputs, mask).logits, model.eval()(inputs, mask).logits)


@torch.no_grad()
def test_the_adaptor_may_be_a_bert_of_transformers():
    bert = BertConfig(**SMALL, vocab_size=10, max_position_embeddings=32)
    model = built(adaptor_config=bert, output_size=7)
    reference = BertModel(bert, add_pooling_layer=False).double().eval()
    reference.load_state_dict(model.adaptor.state_dict())
    seen = {}
    model.adaptor_proj.register_forward_hook(lambda module, args, output: seen.update(states=output))
    out = model(spectra())
    states = reference(inputs_embeds=F.relu(seen["states"]), attention_mask=out.token_mask).last_hidden_state
    assert_close(out.last_hidden_state, F.relu(model.out_proj(states)))


@torch.no_grad()
def test_without_an_adaptor_there_is_one_layer():
    model = built(adaptor_config=None, output_size=7)
    assert model.adaptor is None
    out = model(spectra())
    assert out.last_hidden_state.shape[-1] == 7 and (out.last_hidden_state >= 0).all()


def test_frozen_ears_do_not_learn_and_do_not_drop(tmp_path):
    encoder = {**hf_zoo.create_config("cformer-tiny").encoder_config.to_dict(), "hidden_dropout": 0.5}
    model = hf_zoo.create_model("cformer-tiny", freeze_encoder=True, encoder_config=encoder).train()
    assert model.training and not any(m.training for m in model.model.encoder.modules())
    x = spectra().float()
    model(x, labels=torch.tensor([[7, 9], [5, 6]])).loss.backward()
    assert all(p.grad is None for p in model.model.encoder.parameters())
    assert model.ctc_head.weight.grad is not None
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).train()
    assert not any(p.requires_grad for p in again.model.encoder.parameters())
    assert not again.model.encoder.training and again.model.weights.training


def test_it_learns_how_many_words_there_are():
    """As many words as bursts of a spectrum; nothing is scaled in evaluation, so weights must have learnt it."""
    torch.manual_seed(0)
    encoder = {**hf_zoo.create_config("cformer-tiny").encoder_config.to_dict(), "initializer_range": 0.15}
    options = {"adaptor_config": None, "encoder_config": encoder, "initializer_range": 0.15}
    model = hf_zoo.create_model("cformer-tiny", **options)
    generator = torch.Generator().manual_seed(0)

    def batch(rows=16):
        x, labels = -torch.ones(rows, 48, 32), torch.full((rows, 4), -100)
        counts = torch.randint(1, 5, (rows,), generator=generator)
        for row, count in enumerate(counts.tolist()):
            kinds = torch.randint(1, 4, (count,), generator=generator)
            for place, kind in enumerate(kinds.tolist()):
                x[row, 12 * place + 2 : 12 * place + 8, 8 * kind : 8 * kind + 8] = 1.0
                labels[row, place] = kind
        return x + 0.1 * torch.randn(x.shape, generator=generator), labels, counts

    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(160):
        x, labels, _ = batch()
        model(x, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    x, labels, counts = batch(64)
    with torch.no_grad():
        out = model.eval()(x)
    assert (out.quantities - counts).abs().mean() < 0.3
    right = out.token_mask.sum(-1) == counts
    assert right.float().mean() > 0.8
    width = out.token_logits.shape[1]
    real = (labels[:, :width] != -100) & right[:, None]
    assert (out.token_logits.argmax(-1) == labels[:, :width])[real].float().mean() > 0.8


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weight_kernel_size": 4}, "weight_kernel_size must be odd"),
        ({"threshold": 0.0}, "threshold"),
        ({"least_tail": 1.5}, "least_tail"),
        ({"pad_token_id": 600}, "pad_token_id is CTC's blank"),
        ({"encoder_config": {"hidden_size": 3}}, "encoder_config needs a model_type"),
    ],
)
def test_what_does_not_fit_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        hf_zoo.create_config("cformer-tiny", **fields)
