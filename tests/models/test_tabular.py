"""What is special to transformers over columns: they have no order, the first norm, TabTransformer, pre-training."""

import math

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import Trainer, TrainingArguments

import hf_zoo
from hf_zoo.data import load_dataset
from hf_zoo.tokenization.tabular_processor import ZooTabularProcessor


def built(name="tabular-tiny", task=None, seed=0, **fields):
    torch.manual_seed(seed)
    model = hf_zoo.create_model(name, task, **fields).eval().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def batch(model, rows=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    values = torch.randn(rows, config.num_numeric_columns, generator=generator, dtype=torch.float64)
    draws = torch.rand(rows, len(config.category_sizes), generator=generator)
    return {"numeric_values": values, "category_ids": (draws * torch.tensor(config.category_sizes)).long()}


def norm(x, layer):
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + layer.eps).sqrt()
    return x * layer.weight + layer.bias


def attention(x, layer, heads):
    y = torch.zeros_like(x)
    q, k, v = (p(x) for p in (layer.q_proj, layer.k_proj, layer.v_proj))
    size = x.shape[-1] // heads
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        scores = q[..., part] @ k[..., part].mT / math.sqrt(size)
        y[..., part] = scores.softmax(-1) @ v[..., part]
    return layer.o_proj(y)


@torch.no_grad()
def test_ft_transformer_is_its_equations():
    model = built()
    inputs, trunk = batch(model), model.model
    tokens = trunk.embed_columns(**inputs)
    x = torch.cat((trunk.cls_token.expand(6, 1, -1), tokens), dim=1)
    for i, block in enumerate(trunk.layers):
        x = x + attention(x if i == 0 else norm(x, block.mixer_norm), block.self_attn, 4)
        mlp, z = block.mlp, norm(x, block.mlp_norm)
        x = x + mlp.down_proj(F.relu(mlp.gate_proj(z)) * mlp.up_proj(z))
    assert_close(model(**inputs).logits, model.score(F.relu(norm(x[:, 0], trunk.norm))))
    assert trunk.layers[0].mixer_norm is None


@torch.no_grad()
def test_tab_transformer_is_its_equations():
    model = built("tab-transformer-tiny")
    inputs, trunk = batch(model), model.model
    x = trunk.embed_columns.categories(inputs["category_ids"])
    for block in trunk.layers:
        x = norm(x + attention(x, block.self_attn, 4), block.mixer_norm)
        x = norm(x + block.mlp.down_proj(F.relu(block.mlp.up_proj(x))), block.mlp_norm)
    row = torch.cat((x.flatten(1), norm(inputs["numeric_values"], trunk.row_numbers.norm)), dim=1)
    first, _, second, _, last = model.score
    assert (first.out_features, second.out_features) == (4 * row.shape[1], 2 * row.shape[1])
    assert_close(model(**inputs).logits, last(F.relu(second(F.relu(first(row))))))


@pytest.mark.parametrize("bins", [None, [[-1.0, 0.0, 1.0 + i] for i in range(5)]])
@torch.no_grad()
def test_columns_have_no_order(bins):
    model = built(numeric_bins=bins)
    inputs = batch(model)
    of_numbers, of_categories = [3, 0, 4, 1, 2], [2, 0, 1]
    sizes = model.config.category_sizes
    fields = {} if bins is None else {"numeric_bins": [bins[i] for i in of_numbers]}
    other = built(category_sizes=[sizes[i] for i in of_categories], **fields)
    weights = model.state_dict()
    for name in list(weights):
        if ".numbers." in name:
            weights[name] = weights[name][of_numbers]
        elif name.endswith("categories.bias"):
            weights[name] = weights[name][of_categories]
        elif name.endswith("categories.weight"):
            tables = weights[name].split(sizes)
            weights[name] = torch.cat([tables[i] for i in of_categories])
    other.load_state_dict(weights)
    moved = {
        "numeric_values": inputs["numeric_values"][:, of_numbers],
        "category_ids": inputs["category_ids"][:, of_categories],
    }
    assert_close(other(**moved).logits, model(**inputs).logits)


@torch.no_grad()
def test_tab_transformer_without_categories_is_an_mlp():
    model = built("tab-transformer-tiny", category_sizes=[])
    assert not list(model.model.layers)
    values = torch.randn(4, 5, dtype=torch.float64)
    row = norm(values, model.model.row_numbers.norm)
    assert_close(model(values).logits, model.score(row))
    with pytest.raises(ValueError, match="nothing to hide"):
        built("tab-transformer-tiny", "pre-training", category_sizes=[])


@torch.no_grad()
def test_missing_numbers_of_tab_transformer():
    model = built("tab-transformer-tiny")
    inputs = batch(model)
    filled = {**inputs, "numeric_values": inputs["numeric_values"].clone()}
    filled["numeric_values"][2, 3] = model.model.row_numbers.missing[3]
    inputs["numeric_values"][2, 3] = math.nan
    assert_close(model(**inputs).logits, model(**filled).logits)


@pytest.mark.parametrize("name", ["tabular-tiny", "tab-transformer-tiny"])
@torch.no_grad()
def test_tokens_stand_in_for_columns(name):
    model = built(name)
    inputs = batch(model)
    given = {} if name == "tabular-tiny" else {"numeric_values": inputs["numeric_values"]}
    embeds = model.get_input_embeddings()(**inputs)
    assert_close(model(**given, column_embeds=embeds).logits, model(**inputs).logits)
    with pytest.raises(ValueError, match="or column_embeds, not both"):
        model(**inputs, column_embeds=embeds)


def test_wrong_columns_are_named():
    model = built()
    inputs = batch(model)
    with pytest.raises(ValueError, match="category_ids is missing: the model has 3"):
        model(inputs["numeric_values"])
    with pytest.raises(ValueError, match=r"numeric_values must be \(rows, 5\), got \(6, 4\)"):
        model(inputs["numeric_values"][:, :4], inputs["category_ids"])
    with pytest.raises(ValueError, match="category 9 of column 2"):
        model(inputs["numeric_values"], inputs["category_ids"].clamp_min(9).clamp_max(torch.tensor([1, 1, 9])))


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"num_numeric_columns": 0, "category_sizes": []}, "at least one column"),
        ({"category_sizes": [3, 0]}, r"category_sizes\[1\] must be at least 1, got 0"),
        ({"numeric_bins": [[0.0, 1.0]]}, "each of num_numeric_columns=5 columns, got 1"),
        ({"numeric_bins": [[0.0, 1.0]] * 4 + [[1.0, 1.0]]}, r"numeric_bins\[4\] must be at least two growing edges"),
        ({"identifier_size": 4}, 'form="ft" has 0, got 4'),
        ({"form": "tab", "numeric_bins": [[0.0, 1.0]] * 5}, 'numeric_bins are of form="ft"'),
        ({"form": "tab", "identifier_size": 64}, "below hidden_size=64, got 64"),
        ({"hidden_size": 66}, "66 is not a multiple of 4"),
        ({"mask_rate": 1.0}, "mask_rate must be above 0 and below 1"),
        ({"hidden_act": "rellu"}, "'rellu' is not an activation"),
    ],
)
def test_configurations_that_cannot_be_are_refused(fields, complaint):
    with pytest.raises(ValueError, match=complaint):
        hf_zoo.create_config("tabular-tiny", **fields)


# labels


def test_losses_by_the_kind_of_problem():
    inputs = batch(built())
    model = built(num_labels=3)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    outputs = model(**inputs, labels=labels)
    assert_close(outputs.loss, F.cross_entropy(outputs.logits.float(), labels))
    model = built(num_labels=1, problem_type="regression")
    outputs = model(**inputs, labels=torch.arange(6.0))
    assert_close(outputs.loss, (outputs.logits[:, 0].float() - torch.arange(6.0)).square().mean())
    model = built(num_labels=2, problem_type="multi_label_classification")
    many = (torch.arange(12).view(6, 2) % 3 == 0).float()
    outputs = model(**inputs, labels=many)
    assert_close(outputs.loss, F.binary_cross_entropy_with_logits(outputs.logits.float(), many))


# pre-training


@pytest.mark.parametrize("name", ["tabular-tiny", "tab-transformer-tiny"])
@torch.no_grad()
def test_loss_of_hidden_columns(name):
    model = built(name, "pre-training")
    inputs = batch(model)
    inputs["numeric_values"][0, 0] = math.nan  # not to be filled in
    inputs["category_ids"][1, 0] = 0
    num_numbers = 5 if name == "tabular-tiny" else 0
    hidden = torch.rand(6, num_numbers + 3, generator=torch.Generator().manual_seed(3)) < 0.6
    hidden[0, 0] = hidden[1, num_numbers] = True
    outputs = model(**inputs, masked_columns=hidden)
    sizes, losses = [4, 3, 6], []
    scores = outputs.logits[:, num_numbers:].float().split(sizes, dim=1)
    for row in range(6):
        for column in range(num_numbers):
            value = inputs["numeric_values"][row, column]
            if hidden[row, column] and not value.isnan():
                losses.append((outputs.logits[row, column].float() - value).square())
        for column in range(3):
            label = inputs["category_ids"][row, column]
            if hidden[row, num_numbers + column] and label > 0:
                losses.append(F.cross_entropy(scores[column][row], label).double())
    assert_close(outputs.loss.double(), torch.stack(losses).mean())


@torch.no_grad()
def test_hidden_values_are_not_seen():
    model = built("tabular-tiny", "pre-training")
    inputs = batch(model)
    hidden = torch.zeros(6, 8, dtype=torch.bool)
    hidden[:, [1, 6]] = True
    before = model(**inputs, masked_columns=hidden).logits
    inputs["numeric_values"][:, 1] += 3
    inputs["category_ids"][:, 1] = 2 - inputs["category_ids"][:, 1]
    assert torch.equal(model(**inputs, masked_columns=hidden).logits, before)
    inputs["numeric_values"][:, 2] += 3
    assert (model(**inputs, masked_columns=hidden).logits - before).abs().max() > 1e-3


@torch.no_grad()
def test_a_prediction_reads_its_own_column():
    model = built("tabular-tiny", "pre-training")
    inputs = batch(model)
    hidden = torch.zeros(6, 8, dtype=torch.bool)
    x = model.model(**inputs).last_hidden_state[:, 1:]
    columns = [*range(5), *[5] * 4, *[6] * 3, *[7] * 6]
    expected = [x[:, c] @ w + b for c, w, b in zip(columns, model.fill.weight, model.fill.bias, strict=True)]
    assert_close(model(**inputs, masked_columns=hidden).logits, torch.stack(expected, dim=1))


@torch.no_grad()
def test_replaced_values_come_from_another_row():
    model = built("tabular-tiny", "pre-training", pretraining_objective="replaced_values")
    inputs = batch(model)
    inputs["category_ids"][:, 0] = 1  # the same everywhere: never replaced by another
    inputs["numeric_values"][:, 0] = math.nan
    masked = torch.rand(6, 8, generator=torch.Generator().manual_seed(3)) < 0.5
    masked[:, [0, 5]] = True
    changed = {name: value.clone() for name, value in inputs.items()}
    is_replaced = torch.zeros(6, 8)
    for row in range(6):
        for column in range(8):
            name, place = ("numeric_values", column) if column < 5 else ("category_ids", column - 5)
            if masked[row, column]:
                new, old = inputs[name][row - 1, place], inputs[name][row, place]
                changed[name][row, place] = new
                is_replaced[row, column] = float(new != old and not (new.isnan() and old.isnan()))
    outputs = model(**inputs, masked_columns=masked)
    x = model.model(**changed).last_hidden_state[:, 1:]
    logits = torch.stack([x[:, c] @ model.fill.weight[c] + model.fill.bias[c] for c in range(8)], dim=1)
    assert_close(outputs.logits, logits)
    assert 0 < is_replaced.sum() < masked.sum()
    assert_close(outputs.loss, F.binary_cross_entropy_with_logits(logits.float(), is_replaced))


def test_masks_are_drawn_at_the_rate():
    model = built("tabular-tiny", "pre-training", mask_rate=0.25)
    seen = []
    model.model.register_forward_pre_hook(lambda module, given: seen.append(given[2]))
    torch.manual_seed(0)
    model(**batch(model, rows=2000))
    share = (seen[0] == model.mask_token).all(-1).float().mean().item()
    assert 0.23 < share < 0.27


# on real tables


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("table-breast-cancer", 0.98), ("table-wine", 0.95)])
def test_real_tables_are_learnt(name, least, tmp_path):
    """AUC on breast cancer, accuracy on wine."""
    train = load_dataset(name, "train")
    processor = ZooTabularProcessor.fit(train, target="label")
    torch.manual_seed(0)
    model = hf_zoo.create_model("tabular-tiny", **processor.config_fields(), attention_dropout=0.1, mlp_dropout=0.1)
    arguments = TrainingArguments(
        tmp_path,
        num_train_epochs=40,
        learning_rate=1e-3,
        per_device_train_batch_size=32,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
    )
    ready = train.map(processor, batched=True, remove_columns=train.column_names)
    Trainer(model, arguments, train_dataset=ready).train()
    test = processor(load_dataset(name, "validation+test"))
    labels = test.pop("labels")
    with torch.no_grad():
        logits = model.eval()(**test).logits
    if name == "table-wine":
        assert (logits.argmax(-1) == labels).float().mean() >= least
    else:
        assert roc_auc_score(labels, logits.softmax(-1)[:, 1]) > least
