"""What is special about the Multihead Latent Transformer: latents in the cache, other modalities before the text."""

import pytest
import torch
from torch.testing import assert_close

import hf_zoo

SIZES = {"vocab_size": 64, "hidden_size": 32, "latent_dim": 8, "intermediate_size": 48, "interaction_rank": 4}
MODALITIES = {"image": 6, "audio": 3}


def make(task=None, **options):
    torch.manual_seed(0)
    model = hf_zoo.create_model("latent-tiny", task=task, **{**SIZES, "modalities": MODALITIES, **options}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def ids(rows=2, tokens=12):
    return torch.randint(1, 64, (rows, tokens), generator=torch.Generator().manual_seed(1))


def before(rows=2):
    generator = torch.Generator().manual_seed(2)
    return {
        name: torch.randn(rows, 2 + i, width, generator=generator)
        for i, (name, width) in enumerate(MODALITIES.items())
    }


@pytest.mark.parametrize("positions", ["rotary", "alibi", "none"])
@torch.no_grad()
def test_every_kind_of_position_decodes_what_it_reads(positions):
    model, tokens = make(positions=positions), ids()
    outputs = model(tokens[:, :5], use_cache=True)
    logits = [outputs.logits]
    for t in range(5, 12):
        outputs = model(tokens[:, t : t + 1], past_key_values=outputs.past_key_values, use_cache=True)
        logits.append(outputs.logits)
    assert_close(torch.cat(logits, dim=1), model(tokens).logits, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("latent_dim", [8, [4, 8, 6, 8]])
@torch.no_grad()
def test_the_cache_holds_latents_alone(latent_dim):
    layer = make(latent_dim=latent_dim)(ids(), use_cache=True).past_key_values.layers[0]
    assert layer.keys.shape == (2, 4, 12, 8)
    assert layer.values.numel() == 0


@torch.no_grad()
def test_text_sees_what_stands_before_it():
    model, tokens = make(), ids()
    logits = model(tokens, modality_inputs=before()).logits
    assert logits.shape == (2, 12, 64)
    changed = before()
    changed["audio"][:, 0] += 1
    assert (model(tokens, modality_inputs=changed).logits - logits).abs().amax((1, 2)).min() > 1e-3
    assert (model(tokens).logits - logits).abs().max() > 1e-3
    swapped = dict(reversed(before().items()))
    assert torch.equal(model(tokens, modality_inputs=swapped).logits, logits)


@pytest.mark.parametrize("side", ["none", "left"])
@torch.no_grad()
def test_generation_goes_on_after_other_modalities(side):
    model, tokens = make(), ids(tokens=4)
    expected = tokens
    for _ in range(5):
        expected = torch.cat((expected, model(expected, modality_inputs=before()).logits[:, -1:].argmax(-1)), dim=1)
    mask = torch.ones_like(tokens)
    if side == "left":
        tokens, mask = (torch.cat((torch.zeros(2, 3, dtype=torch.long), z), dim=1) for z in (tokens, mask))
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    for beams in (1, 2):
        got = model.generate(tokens, attention_mask=mask, modality_inputs=before(), **options, num_beams=beams)
        if beams == 1:
            assert torch.equal(got[:, -9:], expected)
    assert torch.equal(
        got,
        model.generate(tokens, attention_mask=mask, modality_inputs=before(), **options, num_beams=2, use_cache=False),
    )


def test_latents_add_to_the_loss_in_training_alone():
    model, tokens = make(latent_stochastic=True, diversity_weight=0.1), ids()
    plain = make(latent_stochastic=True, kl_weight=0.0, align_weight=0.0)
    assert (
        model(tokens, labels=tokens, modality_inputs=before()).loss
        == plain(tokens, labels=tokens, modality_inputs=before()).loss
    )
    losses = []
    for other in (model, plain):
        torch.manual_seed(3)
        losses.append(other.train()(tokens, labels=tokens, modality_inputs=before()).loss)
    assert losses[0] > losses[1] + 1e-3


def test_alignment_brings_paired_modalities_together():
    """Retrieval among rows that were not trained on, by the latents of the first layer."""
    torch.manual_seed(0)
    model = hf_zoo.create_model("latent-tiny", **SIZES, modalities={"image": 64}, align_weight=1.0)
    generator = torch.Generator().manual_seed(5)
    drawn = torch.randn(64, 64, generator=generator)  # what each word looks like

    def batch(rows):
        words = torch.randint(64, (rows, 4), generator=generator)
        return words, drawn[words] + 0.1 * torch.randn(rows, 4, 64, generator=generator)

    def found(words, image):
        with torch.no_grad():
            text, seen = model.model.pooled_latents("text", words), model.model.pooled_latents("image", image)
        scores = torch.einsum("ahr,bhr->ab", *(torch.nn.functional.normalize(z, dim=-1) for z in (text, seen)))
        return (scores.argmax(-1) == torch.arange(len(words))).float().mean().item()

    test = batch(64)
    assert found(*test) < 0.2
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(150):
        words, image = batch(32)
        model(words, labels=words, modality_inputs={"image": image}).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert found(*test) > 0.9


@torch.no_grad()
def test_modalities_that_do_not_fit_are_named():
    model, tokens = make(), ids()
    with pytest.raises(ValueError, match="'video' is not one of config.modalities, which has image, audio"):
        model(tokens, modality_inputs={"video": torch.randn(2, 3, 6)})
    with pytest.raises(ValueError, match=r"modality_inputs\['image'\] must be \(2, tokens, 6\), got \(2, 3, 5\)"):
        model(tokens, modality_inputs={"image": torch.randn(2, 3, 5)})
    with pytest.raises(ValueError, match="several documents"):
        positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4, 5, 6, 7, 8]])
        model(tokens, modality_inputs=before(), position_ids=positions)


@pytest.mark.parametrize(
    "options, named",
    [
        ({"latent_dim": [8, 8]}, "one for each of the 4 heads"),
        ({"latent_dim": 0}, "latent_dim must be a size of at least 1"),
        ({"qk_dim": 7}, "qk_dim must be even"),
        ({"interaction_rank": 0}, "interaction_rank"),
        ({"latent_act": "sillu"}, "latent_act 'sillu'"),
        ({"modalities": {"text": 4}}, "'text' cannot be a name"),
        ({"modalities": {"items": 4}}, "'items' cannot be a name"),
        ({"align_temperature": 0.0}, "align_temperature"),
    ],
)
def test_options_that_do_not_fit_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        make(**options)
