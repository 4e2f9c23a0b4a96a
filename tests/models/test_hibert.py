"""What is special to Hi-BERT: who reaches whom, cut inputs, empty segments, records, warm starts."""

import pytest
import torch
import transformers
from torch.testing import assert_close

import hf_zoo
from hf_zoo.claims import train
from hf_zoo.registry import ARCHITECTURES
from hf_zoo.training.momentum_target import FollowTarget

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "vocab_size": 64}
RECORD = {"num_ages": 90, "type_vocab_size": 2, "segment_summary": "mean", "segment_size": 5, "segment_stride": 3}


def make(task="feature-extraction", layout="SD", **options):
    torch.manual_seed(0)
    options = {**SIZES, "segment_size": 5, "layout": layout, "num_hidden_layers": len(layout), **options}
    model = hf_zoo.create_model("hibert-tiny", task, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def ids(tokens, rows=1, seed=1):
    return torch.randint(5, 60, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def reached(layout, **options):
    """(15, 15), true where a token's output depends on another's embedding; three segments of 5."""
    x = torch.randn(1, 15, 32, dtype=torch.float64, requires_grad=True)
    hidden = make(layout=layout, **options).double()(inputs_embeds=x).last_hidden_state[0]
    rows = [torch.autograd.grad(h.sum() + h[0], x, retain_graph=True)[0][0].abs().amax(-1) > 0 for h in hidden]
    return torch.stack(rows)


def test_who_reaches_whom():
    segment = torch.arange(15) // 5
    same = segment[:, None] == segment
    first = torch.arange(15) % 5 == 0
    assert torch.equal(reached("S"), same)
    assert torch.equal(reached("SSS"), same)
    assert torch.equal(reached("D"), (first[:, None] & first) | torch.eye(15).bool())
    assert torch.equal(reached("SD"), same | first[:, None])  # only what stands for a segment hears of the others
    assert reached("SDS").all()
    assert reached("SD", segment_summary="mean").all()


@torch.no_grad()
def test_blocks_of_segments_alone_are_bert_on_each(tmp_path):
    torch.manual_seed(0)
    config = transformers.RobertaConfig(**SIZES, num_hidden_layers=2, max_position_embeddings=9, pad_token_id=1)
    upstream = transformers.RobertaModel(config).eval()
    for parameter in upstream.parameters():
        parameter.normal_(0, 0.15)
    upstream.save_pretrained(tmp_path)
    model = ARCHITECTURES["zoo_hibert"].model_class("feature-extraction").from_pretrained(tmp_path).eval()
    assert model.config.segment_size == 7 and set(model.config.layout) == {"S"}
    row = ids(28, rows=2)
    expected = [upstream(part) for part in row.split(7, dim=1)]
    got = model(row)
    assert_close(
        got.last_hidden_state, torch.cat([e.last_hidden_state for e in expected], dim=1), atol=1e-5, rtol=1e-4
    )
    assert_close(got.pooler_output, expected[0].pooler_output, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("summary", ["first", "mean"])
@torch.no_grad()
def test_a_document_block_is_berts_over_summaries(summary):
    """The equation written out: block, positions from 1 on, and what is written back."""
    model = make(layout="SD", segment_summary=summary)
    row = ids(15, rows=2)
    hidden = model(row, output_hidden_states=True).hidden_states
    h = hidden[1].view(2, 3, 5, 32)
    g = h[:, :, 0] if summary == "first" else h.mean(2)
    block = model.layers[1]
    x = g + block.embed_segments.weight[1:4]
    x = block.mixer_norm(x + block.self_attn(x)[0])
    x = block.mlp_norm(x + block.mlp(x))
    expected = h.clone()
    if summary == "first":
        expected[:, :, 0] = x
    else:
        expected += (x - g)[:, :, None]
    assert_close(hidden[2], expected.flatten(1, 2))


@pytest.mark.parametrize("task", ["feature-extraction", "sequence-classification", "masked-lm", "question-answering"])
@torch.no_grad()
def test_cut_inputs_are_rows(task):
    model, row = make(task, "SDS"), ids(15, rows=2)
    assert_close(model(row.view(2, 3, 5))[0], model(row)[0])
    embeds = model.get_input_embeddings()(row)
    assert_close(model(inputs_embeds=embeds.view(2, 3, 5, 32))[0], model(row)[0])


@pytest.mark.parametrize("pooling", ["first", "mean", "max", "attentive"])
@torch.no_grad()
def test_empty_segments_change_nothing_wherever_they_are(pooling):
    model, parts = make(layout="SDS", pooling=pooling), ids(20).view(1, 4, 5)
    mask = torch.ones_like(parts)
    mask[0, 1:3] = 0
    mask[0, 3, 3:] = 0
    got = model(parts, attention_mask=mask)
    expected = model(parts[:, [0, 3]], attention_mask=mask[:, [0, 3]])
    assert_close(got.pooler_output, expected.pooler_output)
    assert_close(
        got.last_hidden_state.view(1, 4, 5, 32)[:, [0, 3]][mask[:, [0, 3]].bool()],
        expected.last_hidden_state.view(1, 2, 5, 32)[mask[:, [0, 3]].bool()],
    )
    for order in ([0, 2, 1, 3], [1, 2, 0, 3], [0, 3, 1, 2]):
        assert_close(model(parts[:, order], attention_mask=mask[:, order]).pooler_output, got.pooler_output)
    swapped = model(parts[:, [3, 1, 2, 0]], attention_mask=mask[:, [3, 1, 2, 0]])
    assert (swapped.pooler_output - got.pooler_output).abs().max() > 1e-4


@pytest.mark.parametrize("summary", ["first", "mean"])
@torch.no_grad()
def test_padding_inside_a_segment_changes_nothing(summary):
    model, parts = make(layout="SDS", segment_summary=summary), ids(12).view(1, 3, 4)
    expected = model(parts)
    wide = torch.full((1, 3, 5), 7)
    mask = torch.ones_like(wide)
    for s, hole in enumerate((0, 2, 4)):
        mask[0, s, hole] = 0
    wide[mask.bool()] = parts.flatten()
    got = model(wide, attention_mask=mask)
    assert_close(got.pooler_output, expected.pooler_output)
    assert_close(got.last_hidden_state[mask.flatten(1).bool()], expected.last_hidden_state[0])


def test_all_gradients_of_a_batch_with_empty_rows_are_finite():
    for summary in ("first", "mean"):
        model = make("sequence-classification", "SDS", segment_summary=summary, pooling="attentive").train()
        mask = torch.ones(3, 15).long()
        mask[1], mask[2, 6:] = 0, 0
        model(ids(15, rows=3), attention_mask=mask, labels=torch.tensor([0, 1, 0])).loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@torch.no_grad()
def test_records_with_ages_and_visits():
    """Overlapping windows: the same by hand, cut before; ages and visits tell; visits beyond the table share a row."""
    model = make("sequence-classification", "SSD", **RECORD)
    row, ages = ids(11), torch.arange(40, 51)[None]
    visits = torch.tensor([[0, 0, 0, 1, 1, 2, 3, 3, 3, 4, 5]])
    got = model(row, age_ids=ages, visit_ids=visits).logits
    pieces = [torch.arange(s, min(s + 5, 11)) for s in (0, 3, 6)]
    index = torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True)
    by_hand = {"input_ids": row[:, index], "age_ids": ages[:, index], "visit_ids": visits[:, index]}
    assert_close(model(**by_hand, attention_mask=torch.ones(1, 3, 5).long()).logits, got)
    assert (model(row, age_ids=ages + 1, visit_ids=visits).logits - got).abs().max() > 1e-4
    assert (model(row, age_ids=ages, visit_ids=visits + 1).logits - got).abs().max() > 1e-4
    parity = model(row, age_ids=ages, visit_ids=visits, token_type_ids=visits % 2).logits
    assert_close(parity, got)
    last = model.config.max_position_embeddings - 1
    far = [model(row, age_ids=ages, visit_ids=torch.full_like(visits, v)).logits for v in (last + 2, last + 40)]
    assert_close(*far)
    with pytest.raises(ValueError, match="position 90 is beyond"):
        model(row, age_ids=ages + 40)
    with pytest.raises(ValueError, match="num_ages"):
        make("sequence-classification")(row, age_ids=ages)


def test_too_many_segments_are_named():
    with pytest.raises(ValueError, match="4 segments of 5 tokens are more than max_segments=3"):
        make(max_segments=3)(ids(16))
    make(max_segments=3, layout="SS")(ids(16))  # nobody asks which segment is which


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"layout": "SXD"}, "layout must be a word of S .*'SX'"),
        ({"layout": ""}, "layout must be a word"),
        ({"segment_size": 40}, "segment_size=40 is more than the 16 places"),
        ({"segment_stride": 6, "segment_size": 5}, "segment_stride must be from 1 to segment_size=5.*got 6"),
        ({"segment_stride": 0}, "segment_stride must be from 1"),
    ],
)
def test_sizes_that_cannot_be_are_named(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        hf_zoo.create_config("hibert-tiny", **options)


def bert(task="masked-lm", layers=3):
    torch.manual_seed(0)
    return hf_zoo.create_model("mlm-tiny", task, **SIZES, num_hidden_layers=layers, max_position_embeddings=24).eval()


@torch.no_grad()
def test_a_bert_becomes_hierarchical():
    source = bert()
    model = hf_zoo.as_hierarchical(source, "SSD", segment_size=8, max_segments=6)
    assert model.config.layout == "SSDS" and not model.training
    assert model.config.max_position_embeddings == 8
    theirs = source.model.layers.state_dict()
    origin = {0: 0, 1: 1, 2: 1, 3: 2}
    for name, weight in model.model.layers.state_dict().items():
        number, _, rest = name.partition(".")
        if "embed_segments" in name:
            assert_close(weight, torch.cat((torch.zeros(1, 32), source.model.embed_positions.weight[:6])))
        else:
            assert torch.equal(weight, theirs[f"{origin[int(number)]}.{rest}"]), name
    row = ids(8)
    alone = hf_zoo.as_hierarchical(source, "S", segment_size=8)
    assert_close(alone(row).logits, source(row).logits)
    assert model(ids(40)).logits.isfinite().all()


def test_a_layout_is_repeated_for_all_layers():
    from hf_zoo.hierarchy import full_layout

    assert full_layout("SSSD", 12) == "SSSD" * 4
    assert full_layout("SD", 2) == "SDSD"
    assert full_layout("S" * 12 + "DDDD", 12) == "S" * 12 + "DDDD"
    with pytest.raises(ValueError, match="blocks of segments"):
        full_layout("DD", 3)


def test_what_cannot_become_hierarchical_is_named():
    with pytest.raises(ValueError, match="segment_size must be at most the 24 places"):
        hf_zoo.as_hierarchical(bert(), segment_size=25)
    with pytest.raises(ValueError, match="only zoo_mlm"):
        hf_zoo.as_hierarchical(make("masked-lm"))
    with pytest.raises(ValueError, match="next-sentence-prediction"):
        hf_zoo.as_hierarchical(bert("next-sentence-prediction"), segment_size=8)


def parity_of_facts(generator):
    """A fact in the first and one in the last of three segments; the label is whether they differ."""
    row = torch.randint(10, 30, (15,), generator=generator)
    facts = torch.randint(2, (2,), generator=generator)
    row[2], row[12] = 5 + facts[0], 7 + facts[1]
    return {"input_ids": row, "labels": facts.sum() % 2}


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "solves"), [("SD", True), ("SS", False)])
def test_facts_of_two_segments_are_joined_by_documents_alone(layout, solves):
    """Pooled from the first segment, which alone knows nothing of the last."""
    torch.manual_seed(0)
    rates = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "block_layout": "pre", "initializer_range": 0.2}
    options = {**SIZES, **rates, "segment_size": 5, "layout": layout, "num_hidden_layers": 2, "pooling": "first"}
    model = hf_zoo.create_model("hibert-tiny", "sequence-classification", num_labels=2, **options)
    train(model, parity_of_facts, steps=400, learning_rate=3e-3, batch_size=32)
    rows = [parity_of_facts(torch.Generator().manual_seed(10**6 + i)) for i in range(300)]
    tokens, labels = (torch.stack([row[name] for row in rows]) for name in ("input_ids", "labels"))
    with torch.no_grad():
        accuracy = (model(tokens).logits.argmax(-1) == labels).float().mean()
    assert accuracy > 0.97 if solves else accuracy < 0.6


def learner(**options):
    model = make("pre-training", "SD", projection_size=16, **options)
    return model.train()


@torch.no_grad()
def test_the_loss_of_two_views_is_that_of_the_paper():
    model, row = learner().eval(), ids(15, rows=3)
    row_mask = torch.ones_like(row)
    row_mask[1, 9:] = 0
    generator = torch.Generator().manual_seed(0)
    views = [model.view(row_mask, generator) for _ in range(2)]
    assert not torch.equal(*views) and all((v <= row_mask).all() and v[:, 0].all() for v in views)
    for updates in (0, 1):
        if updates:
            model.update_target()
            for parameter in model.target.network.parameters():
                parameter.add_(0.02)
        target = model.target.network if updates else (model.model, model.projector)
        expected = 0
        for one, other in (views, views[::-1]):
            p = model.predictor(model.projector(model.model(row, attention_mask=one).pooler_output))
            z = target[1](target[0](row, attention_mask=other).pooler_output)
            cosine = (p * z).sum(-1) / (p.norm(dim=-1) * z.norm(dim=-1))
            expected = expected + (2 - 2 * cosine).mean()
        assert_close(model(row, attention_mask=row_mask).loss, expected)
    share = torch.stack([model.view(torch.ones(50, 200), None) for _ in range(4)]).mean()
    assert abs(share - 0.5) < 0.02


def test_the_target_gets_no_gradient_and_follows():
    model = learner()
    assert not any(p.requires_grad for p in model.target.parameters())
    fresh = [p.clone() for p in model.target.network.parameters()]
    model.update_target()
    online = [p.detach().clone() for m in (model.model, model.projector) for p in m.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(model.target.network.parameters(), online, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(fresh, online, strict=True))
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(1.0)
    model.update_target(0.75)
    for target, before in zip(model.target.network.parameters(), online, strict=True):
        assert_close(target, before + 0.25)
    model(ids(15)).loss.backward()
    assert all(p.grad is None for p in model.target.parameters())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_target_follows_once_a_step_of_the_optimiser(checkpointing, tmp_path):
    """With accumulated batches and blocks that are computed again."""
    model = learner()
    decays, follow = [], model.update_target

    def update_target(decay):
        decays.append(decay)
        follow(decay)

    model.update_target = update_target
    arguments = transformers.TrainingArguments(
        *(tmp_path,),
        **{"max_steps": 4, "gradient_accumulation_steps": 3, "per_device_train_batch_size": 2, "use_cpu": True},
        **{"gradient_checkpointing": checkpointing, "report_to": [], "learning_rate": 1e-3, "save_strategy": "no"},
    )
    rows = [{"input_ids": row} for row in ids(15, rows=24)]
    transformers.Trainer(model, arguments, train_dataset=rows, callbacks=[FollowTarget()]).train()
    assert int(model.target.num_updates) == 4
    assert decays[0] == 0.996 and decays == sorted(decays) and decays[-1] < 1
    online, target = model.model.embed_tokens.weight, model.target.network[0].embed_tokens.weight
    assert 0 < (online - target).abs().max() < 0.1


def test_pre_training_lowers_the_loss_and_is_resumed_whole(tmp_path):
    torch.manual_seed(0)
    model = learner()
    optimizer, rows, losses = torch.optim.AdamW(model.parameters(), lr=1e-3), ids(15, rows=16), []
    for _ in range(30):
        loss = model(rows).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.update_target()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert int(again.target.num_updates) == 30
    assert_close(again.eval()(rows).loss, model.eval()(rows).loss)
    encoder = ARCHITECTURES["zoo_hibert"].model_class("sequence-classification").from_pretrained(tmp_path)
    assert torch.equal(encoder.model.embed_tokens.weight, model.model.embed_tokens.weight)
    fresh = type(model).from_pretrained(_folder_of_an_encoder(tmp_path / "encoder"))
    assert int(fresh.target.num_updates) == 0
    assert fresh.eval()(rows).loss.isfinite()


def _folder_of_an_encoder(path):
    make().save_pretrained(path)
    return path


def test_vocabularies_of_both_networks_are_resized():
    model = learner()
    model.resize_token_embeddings(70)
    model.update_target()
    assert len(model.target.network[0].embed_tokens.weight) == 70
    assert not any(p.requires_grad for p in model.target.parameters())


@pytest.mark.slow
def test_the_command_pre_trains_with_a_target(tmp_path):
    from tiny import text_file

    from hf_zoo.training.train import train as run

    trainer = run(
        *("hibert-tiny", str(text_file(tmp_path / "text.txt"))),
        **{"task": "pre-training", "output_dir": tmp_path / "out", "max_steps": 3, "block_size": 64, "report_to": []},
    )
    assert int(trainer.model.target.num_updates) == 3
