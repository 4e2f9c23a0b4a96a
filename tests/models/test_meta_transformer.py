"""What is special to Meta-Transformer: an encoder that stays as it is, and twelve modalities that it reads."""

import pytest
import torch
import transformers
from peft import get_peft_model
from torch.testing import assert_close
from transformers import ViTConfig, ViTModel

import hf_zoo
from hf_zoo.modeling.meta_transformer.configuration_meta_transformer import MODALITIES, ZooMetaTransformerConfig
from hf_zoo.modeling.meta_transformer.modality_tokens import INPUTS, noise
from hf_zoo.modeling.meta_transformer.modeling_meta_transformer import (
    ZooMetaTransformerForSequenceClassification,
    ZooMetaTransformerForTokenClassification,
    ZooMetaTransformerModel,
)
from hf_zoo.modeling.vit.modeling_vit import ZooVitModel

TINY = hf_zoo.create_config("meta-transformer-tiny").modalities
ENCODER = hf_zoo.create_config("meta-transformer-tiny").encoder_config


def make(model_class=ZooMetaTransformerForSequenceClassification, modalities=None, seed=0, **options):
    torch.manual_seed(seed)
    options.setdefault("encoder_config", ENCODER.to_dict())
    config = ZooMetaTransformerConfig(modalities={name: TINY[name] for name in modalities or TINY}, **options)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def batch(*names, rows=2, seed=3):
    return noise({name: TINY[name] for name in names}, rows, torch.Generator().manual_seed(seed))


def encoder_weights(model):
    return {name: weight.clone() for name, weight in model.base_model.encoder.state_dict().items()}


def test_one_encoder_of_twelve_tasks_is_bit_identical_after_training(tmp_path):
    torch.manual_seed(0)
    encoder = ZooVitModel(ENCODER, add_pooling_layer=False, add_embeddings=False)
    before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    for name in MODALITIES:
        sizes = {name: TINY[name]}
        model = ZooMetaTransformerForSequenceClassification.from_encoder(encoder, modalities=sizes, num_labels=2)
        assert model.model.encoder.layers is encoder.layers
        tokeniser = {n: w.clone() for n, w in model.model.tokenisers.named_parameters()}
        inputs = batch(name, rows=4)
        rows = [{**{field: v[i] for field, v in inputs.items()}, "labels": i % 2} for i in range(4)]
        arguments = transformers.TrainingArguments(
            *(tmp_path / name,), max_steps=3, learning_rate=1e-2, weight_decay=0.1, report_to=[], use_cpu=True
        )
        transformers.Trainer(model, arguments, train_dataset=rows).train()
        trained = model.model.encoder.state_dict()
        assert all(torch.equal(trained[n], weight) for n, weight in before.items()), name
        changed = model.model.tokenisers.named_parameters()
        still = [n for n, weight in changed if torch.equal(weight, tokeniser[n])]
        assert [n for n in still if "missing" not in n] == [], name  # of numbers that are missing there is one
        assert not torch.equal(model.score.weight, torch.zeros_like(model.score.weight))


@pytest.mark.parametrize("name", sorted(MODALITIES))
@torch.no_grad()
def test_every_modality_counts_alone_and_beside_others(name):
    model = make()
    alone, others = batch(name), batch(*(other for other in MODALITIES if other != name))
    changed = batch(name, seed=4)
    assert (model(**alone).logits - model(**changed).logits).abs().max() > 1e-3
    together = model(**alone, **others).logits
    assert (together - model(**changed, **others).logits).abs().max() > 1e-3
    assert (together - model(**others).logits).abs().max() > 1e-3
    single = make(ZooMetaTransformerModel, [name])
    assert single.main_input_name == INPUTS[name][0]
    assert set(single.dummy_inputs) <= set(INPUTS[name])


def test_a_frozen_encoder_is_not_in_training():
    model = make().train()
    assert model.training and model.model.tokenisers.training and not model.model.encoder.training
    dropouts = [m for m in model.model.encoder.modules() if isinstance(m, torch.nn.Dropout)]
    assert dropouts and not any(dropout.training for dropout in dropouts)
    assert not any(weight.requires_grad for weight in model.model.encoder.parameters())
    assert all(w.requires_grad for n, w in model.named_parameters() if "encoder." not in n)
    assert not model.eval().training


def test_loading_leaves_the_encoder_frozen(tmp_path):
    make().save_pretrained(tmp_path)
    for loaded in (
        ZooMetaTransformerForSequenceClassification.from_pretrained(tmp_path),
        ZooMetaTransformerModel.from_pretrained(tmp_path),
        ZooMetaTransformerModel.from_pretrained(tmp_path, output_loading_info=True)[0],
    ):
        assert not any(weight.requires_grad for weight in loaded.base_model.encoder.parameters())
        assert not loaded.train().base_model.encoder.training
    free = ZooMetaTransformerModel.from_pretrained(tmp_path, freeze_encoder=False)
    assert all(weight.requires_grad for weight in free.parameters())
    assert free.train().encoder.training


def test_checkpointing_reaches_a_frozen_encoder():
    gradients, calls = [], []
    for is_on in (False, True):
        model = make(modalities=["image"]).train()
        if is_on:
            model.gradient_checkpointing_enable()
            model.train()
            model.model.encoder.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
        model(**batch("image"), labels=torch.tensor([0, 1])).loss.backward()
        gradients.append(model.model.cls_token.grad)
    assert len(calls) == 2  # forward, and again on the way back
    assert_close(*gradients)


def test_an_adapter_in_the_encoder_learns():
    model = make()
    tuned = get_peft_model(
        model, hf_zoo.lora_config(model, r=4, lora_dropout=0.1, modules_to_save=["tokenisers", "score"])
    )
    tuned.train()
    tuned(**batch(*MODALITIES), labels=torch.tensor([0, 1])).loss.backward()
    learnt = {name for name, weight in tuned.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert any("encoder" in name and "lora_B" in name for name in learnt)
    assert any("tokenisers" in name and "modules_to_save" in name for name in learnt)
    assert any("score" in name for name in learnt)
    assert all("lora_" in name or "modules_to_save" in name for name in learnt)
    lora = [m for name, m in tuned.named_modules() if "lora_dropout" in name and isinstance(m, torch.nn.Dropout)]
    assert lora and all(dropout.training for dropout in lora)


@torch.no_grad()
def test_pictures_are_read_as_vit_reads_them():
    config = ViTConfig(
        **{"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128},
        **{"image_size": 16, "patch_size": 8},
    )
    torch.manual_seed(0)
    upstream = ViTModel(config, add_pooling_layer=False).eval().double()
    for parameter in upstream.parameters():
        parameter.normal_(std=0.2)
    own = from_upstream(upstream)
    model = ZooMetaTransformerModel.from_encoder(own, modalities={"image": TINY["image"]}).eval().double()
    tokens = model.tokenisers.by_name["image"]
    tokens.patch_embed.load_state_dict(own.embeddings.patch_embed.state_dict())
    tokens.embed_positions.weight.copy_(own.embeddings.embed_positions.weight[1:])
    model.cls_token.copy_(own.embeddings.cls_token + own.embeddings.embed_positions.weight[0])
    pixels = batch("image")["pixel_values"].double()
    model.norm = torch.nn.Identity()
    expected = upstream(pixels).last_hidden_state
    assert_close(model(pixel_values=pixels).last_hidden_state, expected, atol=1e-6, rtol=1e-5)
    own.layers[1].mlp.up_proj.weight.mul_(1.1)  # shared by both
    assert (model(pixel_values=pixels).last_hidden_state - expected).abs().max() > 1e-3


def from_upstream(model):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return ZooVitModel.from_pretrained(folder, add_pooling_layer=False).eval().double()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@torch.no_grad()
def test_padding_of_texts_changes_nothing(side, pooling):
    model, inputs = make(pooling=pooling), batch("text", "imu")
    pads = torch.full((2, 3), 4)
    order = (pads, inputs["input_ids"]) if side == "left" else (inputs["input_ids"], pads)
    mask = torch.cat([torch.full_like(part, int(part is not pads)) for part in order], dim=1)
    padded = {**inputs, "input_ids": torch.cat(order, dim=1), "attention_mask": mask}
    assert_close(model(**padded).logits, model(**inputs).logits, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_graphs_with_other_numbers_have_the_same_logits():
    graph = {"node_size": 4, "edge_size": 2, "identifier_size": 16, "identifiers": "laplacian"}
    torch.manual_seed(0)
    config = ZooMetaTransformerConfig(modalities={"graph": graph}, encoder_config=ENCODER.to_dict())
    model = ZooMetaTransformerForSequenceClassification(config).eval()
    generator = torch.Generator().manual_seed(4)
    edges = torch.triu_indices(9, 9, 1).T[torch.randperm(36, generator=generator)[:14]][None]
    nodes, values = torch.randn(1, 9, 4), torch.randn(1, 14, 2)
    order = torch.randperm(9, generator=generator)
    names = order.argsort()
    before = model(node_values=nodes, edge_index=edges, edge_values=values).logits
    after = model(node_values=nodes[:, order], edge_index=names[edges], edge_values=values).logits
    assert_close(after, before, atol=1e-4, rtol=1e-4)
    wrong = model(node_values=nodes, edge_index=names[edges], edge_values=values).logits
    assert (wrong - before).abs().max() > 1e-3
    # Random identifiers that go with their nodes
    model = make(modalities=["graph"])
    given = torch.linalg.qr(torch.randn(1, 16, 16))[0][:, :9]
    before = model(node_values=nodes, edge_index=edges, edge_values=values, node_identifiers=given).logits
    other = {"node_values": nodes[:, order], "edge_index": names[edges], "edge_values": values}
    assert_close(model(**other, node_identifiers=given[:, order]).logits, before, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_tokens_of_all_kinds_are_classified():
    model = make(ZooMetaTransformerForTokenClassification)
    expected = {"text": 8, "image": 4, "video": 8, "hyperspectral": 6, "points": 6, "audio": 14, "table": 5}
    expected |= {"graph": 10, "time_series": 8, "imu": 8, "infrared": 4, "x_ray": 4}
    for name, count in expected.items():
        labels = torch.zeros(2, count, dtype=torch.long)
        outputs = model(**batch(name), labels=labels)
        assert outputs.logits.shape == (2, count, 2), name
        labels[:, 1:] = -100
        first = torch.nn.functional.cross_entropy(outputs.logits[:, 0], labels[:, 0])
        assert_close(model(**batch(name), labels=labels).loss, first)


@torch.no_grad()
def test_a_row_is_its_class_token_or_the_mean_of_the_others():
    model = make(ZooMetaTransformerModel, pooling="mean")
    outputs = model(**batch("image"))
    assert_close(outputs.pooler_output, outputs.last_hidden_state[:, 1:].mean(1))
    graph = batch("graph")
    outputs = model(**graph)
    mask = torch.cat((torch.ones(2, 5), (graph["edge_index"][..., 0] >= 0).float()), dim=1)[..., None]
    assert_close(outputs.pooler_output, (outputs.last_hidden_state[:, 1:] * mask).sum(1) / mask.sum(1))
    model = make(ZooMetaTransformerModel)
    outputs = model(**batch("image"))
    assert_close(outputs.pooler_output, outputs.last_hidden_state[:, 0])


def test_modalities_keep_their_order_whatever_order_they_are_given_in(tmp_path):
    config = ZooMetaTransformerConfig(modalities={"imu": {}, "audio": {}, "text": {"max_length": 9}})
    assert list(config.modalities) == ["text", "audio", "imu"]
    assert config.modalities["text"] == {"vocab_size": 49408, "max_length": 9}
    config.save_pretrained(tmp_path)
    assert list(ZooMetaTransformerConfig.from_pretrained(tmp_path).modalities) == ["text", "audio", "imu"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": {"smell": {}}}, "unknown modality 'smell'"),
        ({"modalities": {"image": {"pach_size": 8}}}, "pach_size.*Did you mean 'patch_size'"),
        ({"modalities": {}}, "modalities is empty"),
        ({"modalities": {"image": {"image_size": 8}}}, r"modalities\['image'\]: image_size.*patch_size=16, got 8"),
        ({"modalities": {"video": {"num_frames": 1}}}, "num_frames must be at least tubelet_size=2, got 1"),
        ({"modalities": {"hyperspectral": {"group_size": 2}}}, "group_size must be odd"),
        ({"modalities": {"points": {"num_channels": 2}}}, "num_channels must be at least 3"),
        ({"modalities": {"audio": {"max_frames": 8}}}, "max_frames must be at least patch_size=16"),
        ({"modalities": {"graph": {"identifiers": "names"}}}, "identifiers must be.*laplacian.*got 'names'"),
        ({"modalities": {"table": {"num_numeric_columns": 0}}}, "num_numeric_columns must be at least 1"),
        ({"modalities": {"table": {"category_sizes": [3, 0]}}}, "category_sizes must be a list"),
        ({"modalities": {"imu": {"num_channels": 0}}}, "num_channels must be a whole number of at least 1, got 0"),
        ({"encoder_config": {"model_type": "zoo_mlm"}}, "only zoo_vit's blocks"),
        ({"encoder_config": {"model_type": "zoo_vit", "hidden_dropout": 0.1}}, "hidden_dropout=0.1.*frozen"),
        ({"encoder_config": {"model_type": "zoo_vit", "pooling": "attention"}}, "pooling='attention'"),
    ],
)
def test_wrong_configs_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ZooMetaTransformerConfig(**options)


def test_data_that_the_model_cannot_read_are_named():
    model = make(modalities=["image", "imu"])
    with pytest.raises(ValueError, match="audio_values is of audio, but the model has image, imu"):
        model(**batch("audio"))
    with pytest.raises(ValueError, match="give at least one of pixel_values, imu_values"):
        model()
    with pytest.raises(AttributeError, match="no vocab_size where 'text' is not"):
        _ = model.config.vocab_size
    assert model.get_input_embeddings() is None


def test_words_can_be_added():
    model = make()
    model.resize_token_embeddings(515)
    assert model.config.modalities["text"]["vocab_size"] == model.config.vocab_size == 515
    assert model.get_input_embeddings().num_embeddings == 515


def test_a_tower_without_patches_wants_tokens():
    encoder = ZooVitModel(ENCODER, add_pooling_layer=False, add_embeddings=False)
    assert encoder.get_input_embeddings() is None
    with pytest.raises(ValueError, match="give token_embeds"):
        encoder(torch.zeros(1, 3, 8, 8))
