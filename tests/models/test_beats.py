"""What is special to BEATs: patches, padding, post-norm blocks, labels of hidden patches, its tokenizer."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

import hf_zoo
from hf_zoo.modeling.beats.modeling_beats import ZooBeatsTokenizer


def built(task="feature-extraction", model_class=None, **fields):
    torch.manual_seed(0)
    config = hf_zoo.create_config("beats-tiny", **fields)
    model = model_class(config) if model_class else hf_zoo.create_model("beats-tiny", task, **fields)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval().double()


def spectra(rows=2, frames=43, seed=1):
    return torch.randn(rows, frames, 32, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("frames", "patches"), [(998, 496), (498, 248), (16, 8)])
def test_ten_seconds_are_496_patches(frames, patches):
    config = hf_zoo.create_config("beats-base", num_hidden_layers=1, hidden_size=48, intermediate_size=8)
    model = hf_zoo.create_model(
        "beats-base",
        "feature-extraction",
        **{n: getattr(config, n) for n in ("num_hidden_layers", "hidden_size", "intermediate_size")},
    )
    with torch.no_grad():
        assert model.eval()(torch.zeros(1, frames, 128)).last_hidden_state.shape == (1, patches, 48)


@torch.no_grad()
def test_the_encoder_is_its_equations():
    model, x = built(), spectra()
    out = model(x, output_hidden_states=True)
    patches = model.patches(x)
    assert_close(patches[1, 6].view(8, 8), x[1, 8:16, 16:24])  # four bins of patches a row
    y = patches @ model.patch_embed.weight.flatten(1).T
    y = model.patch_proj(model.patch_norm(y))
    y = model.embed_norm(y + model.embed_positions(y))
    assert_close(out.hidden_states[0], y)
    bias, alpha = model.encoder.distances(20, 20), (2 * 2) ** 0.25
    for block in model.encoder.layers:
        y = block.mixer_norm(alpha * y + block.self_attn(y, bias)[0])
        y = block.mlp_norm(alpha * y + block.mlp.down_proj(F.gelu(block.mlp.up_proj(y))))
    assert_close(out.last_hidden_state, y)
    assert_close(out.pooler_output, y.mean(1))


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padding_changes_nothing(side):
    model, x = built(), spectra(frames=24)
    expected = model(x)
    noise = spectra(frames=16, seed=9) * 5
    parts = (noise, x) if side == "left" else (x, noise)
    mask = torch.cat([torch.full(p.shape[:2], int(p is x)) for p in parts], 1)
    got = model(torch.cat(parts, 1), mask)
    real = slice(8, None) if side == "left" else slice(12)
    assert_close(got.last_hidden_state[:, real], expected.last_hidden_state)
    assert_close(got.pooler_output, expected.pooler_output)


@torch.no_grad()
def test_a_patch_that_is_partly_padding_does_not_count():
    model, x = built(), spectra(frames=24)
    mask = torch.ones(2, 24, dtype=torch.long)
    mask[:, 19:] = 0
    assert_close(model(x, mask).pooler_output, model(x[:, :16]).pooler_output)
    with pytest.raises(ValueError, match=r"attention_mask must be of frames, \(1, 30\).*got \(1, 12\)"):
        model(spectra(1, 30), torch.ones(1, 12))
    with pytest.raises(ValueError, match="no patch_size=8 frames that are real"):
        model(x, torch.tensor([[1] * 24, [1] * 7 + [0] * 17]))


@torch.no_grad()
def test_hidden_patches_alone_count_and_are_not_seen():
    model, x = built("pre-training"), spectra(frames=40)
    hidden = torch.zeros(2, 20, dtype=torch.bool)
    hidden[:, 4:9] = True
    labels = torch.arange(20).expand(2, -1).clone()
    out = model(x, hidden_patches=hidden, labels=labels)
    assert_close(out.loss, F.cross_entropy(out.logits[hidden].float(), labels[hidden]))
    labels[:, 9:] = 0  # labels of what is seen
    assert_close(model(x, hidden_patches=hidden, labels=labels).loss, out.loss)
    changed = x.clone()
    changed[:, 8:16] += 1  # patches 4 to 7
    assert_close(model(changed, hidden_patches=hidden, labels=labels).loss, out.loss)
    assert (model(x + 1, hidden_patches=hidden, labels=labels).loss - out.loss).abs() > 1e-4


@torch.no_grad()
def test_without_labels_a_random_projection_gives_them():
    model, x = built("pre-training"), spectra(frames=40)
    hidden = (torch.arange(20) % 2 == 0).expand(2, -1)
    labels = model.tokenizer(model.patches(x))
    assert_close(model(x, hidden_patches=hidden).loss, model(x, hidden_patches=hidden, labels=labels).loss)
    mask = torch.ones(2, 40, dtype=torch.long)
    mask[:, 24:] = 0
    padded = model(x, mask, hidden_patches=hidden).loss
    assert_close(padded, model(x[:, :24], hidden_patches=hidden[:, :12]).loss)


@torch.no_grad()
def test_what_is_hidden_in_evaluation_is_the_same_each_time():
    model = built("pre-training", mask_rate=0.4)
    x = spectra(3, 80)
    assert_close(model(x).logits, model(x).logits)
    hidden = model.draw_hidden_patches(torch.zeros(3, 40))
    assert torch.equal(hidden, hidden[:1].expand(3, -1))
    assert all(abs(int(part.sum()) - 4) <= 1 for part in hidden[0].split(10))
    model.train()
    assert not torch.equal(model.draw_hidden_patches(torch.zeros(3, 40)), hidden)


def test_the_share_of_hidden_patches_is_that_of_the_config():
    model = built("pre-training", mask_rate=0.75).train()
    seen = []
    model.model.register_forward_pre_hook(lambda module, args: seen.append(args[2].float().mean().item()))
    torch.manual_seed(0)
    model(spectra(20, 80))
    assert 0.7 < seen[0] < 0.8


def test_random_labels_are_saved(tmp_path):
    model = built("pre-training").float()
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    patches = model.patches(spectra().float())
    assert torch.equal(again.tokenizer(patches), model.tokenizer(patches))


@torch.no_grad()
def test_the_loss_of_the_tokenizer_is_its_equation():
    tokenizer, x = built(model_class=ZooBeatsTokenizer), spectra(frames=24)
    teacher = torch.randn(2, 12, 64, dtype=torch.float64)
    out = tokenizer(x, teacher_states=teacher)
    assert torch.equal(out.labels, tokenizer.tokenize(x))
    e = F.normalize(tokenizer.quantize(tokenizer.model(x).last_hidden_state), dim=-1)
    v = F.normalize(tokenizer.codebook.weight, dim=-1)[out.labels]
    states = tokenizer.state_proj(tokenizer.estimator(tokenizer.code_proj(v), None))
    assert_close(out.states, states)
    expected = (1 - F.cosine_similarity(states, teacher, dim=-1) + 2 * (e - v).square().sum(-1)).mean()
    assert_close(out.loss.double(), expected, atol=1e-5, rtol=1e-5)
    mask = torch.ones(2, 40, dtype=torch.long)
    mask[:, 24:] = 0
    padded = tokenizer(F.pad(x, (0, 0, 0, 16)), mask, F.pad(teacher, (0, 0, 0, 8)))
    assert_close(padded.loss, out.loss)


def test_a_tokenizer_is_distilled_from_its_teacher():
    torch.manual_seed(0)
    teacher = hf_zoo.create_model("beats-tiny", "feature-extraction").eval()
    tokenizer = ZooBeatsTokenizer(teacher.config).train()
    x = spectra(4, 24).float()
    with torch.no_grad():
        states = teacher(x).last_hidden_state
    optimizer = torch.optim.Adam(tokenizer.parameters(), lr=2e-3)
    losses = []
    for _ in range(30):
        loss = tokenizer(x, teacher_states=states).loss
        loss.backward()
        assert all(p.grad is not None for p in tokenizer.parameters())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@torch.no_grad()
def test_codes_are_spread_over_sounds_without_their_padding():
    tokenizer, x = built(model_class=ZooBeatsTokenizer), spectra(4, 40)
    tokenizer.spread_codes(x)
    expected = tokenizer.codebook.weight.clone()
    assert tokenizer.tokenize(x).unique().numel() == 32
    mask = torch.ones(4, 80, dtype=torch.long)
    mask[:, 40:] = 0
    tokenizer.codebook.initialise()
    tokenizer.spread_codes(F.pad(x, (0, 0, 0, 40), value=3.0), mask)
    assert_close(tokenizer.codebook.weight, expected)


def test_deep_blocks_start_as_deepnet_says():
    config = hf_zoo.create_config("beats-base", num_hidden_layers=2)
    model = hf_zoo.create_model("beats-base", "feature-extraction", num_hidden_layers=2)
    block, beta = model.encoder.layers[1], (8 * config.num_hidden_layers) ** -0.25
    for proj, gain in ((block.self_attn.q_proj, 1.0), (block.self_attn.v_proj, beta), (block.mlp.up_proj, beta)):
        xavier = (2 / (proj.in_features + proj.out_features)) ** 0.5
        assert_close(proj.weight.std().item(), gain * xavier, rtol=0.02, atol=0)


def test_bad_spectra_are_named():
    model = built().float()
    for shape in ((2, 24, 16), (2, 7, 32), (24, 32)):
        with pytest.raises(ValueError, match="num_mel_bins=32"):
            model(torch.zeros(shape))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_mel_bins": 33}, "num_mel_bins must be a multiple of patch_size"),
        ({"position_groups": 5}, "position_groups"),
        ({"num_buckets": 30}, "num_buckets must be a multiple of 4"),
        ({"mask_rate": 1.0}, "mask_rate"),
    ],
)
def test_what_does_not_fit_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        hf_zoo.create_config("beats-tiny", **fields)
