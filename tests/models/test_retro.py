"""What is special about RETRO: what neighbours reach, generation that retrieves, a decoder that is retrofitted."""

import pytest
import torch
from torch.testing import assert_close
from transformers import StaticCache

import hf_zoo
from hf_zoo.claims import train
from hf_zoo.modeling.layers.positions import rotary_angles

M = 4


def tiny(seed=0, **overrides):
    """A model whose weights are far from their initial values."""
    sizes = {"chunk_size": M, "num_hidden_layers": 4, "cross_layers": [1, 3]}
    model = hf_zoo.create_model("retro-tiny", **{**sizes, **overrides}).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def batch(rows=2, tokens=18, chunks=None, seed=1):
    """Tokens and two neighbours of 6 tokens for each chunk."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 512, (rows, tokens), generator=generator)
    chunks = tokens // M if chunks is None else chunks
    return ids, torch.randint(5, 512, (rows, chunks, 2, 6), generator=generator)


def oracle(chunks):
    """Neighbours that follow from the chunk, so that any two ways to ask must agree; two of every third are short."""
    places = torch.arange(12, device=chunks.device)
    found = (chunks.sum(1)[:, None] * 7 + places * places * 3 + chunks[:, :1]) % 500 + 5
    found = found.view(-1, 2, 6).clone()
    found[chunks[:, -1] % 3 == 0, 1, 2:] = -1
    found[chunks[:, -1] % 5 == 0] = -1  # and some have none
    return found


def all_neighbours(ids):
    """(B, l, k, r) of rows without padding."""
    whole = ids[:, : ids.shape[1] // M * M]
    return oracle(whole.reshape(-1, M)).view(len(ids), -1, 2, 6)


def gradients_of_neighbours(model, ids, neighbours, chunk):
    """Which logits feel the embeddings of a chunk's neighbours (numbers from 1), by position."""
    seen = {}

    def spy(module, inputs):
        seen["x"] = inputs[0].detach().requires_grad_()
        return (seen["x"], *inputs[1:])

    handle = model.model.neighbour_encoder.register_forward_pre_hook(spy)
    logits = model(ids, neighbour_ids=neighbours).logits
    handle.remove()
    felt = []
    for t in range(ids.shape[1]):
        (gradient,) = torch.autograd.grad(logits[0, t].square().sum(), seen["x"], retain_graph=True)
        felt.append(bool(gradient[chunk - 1].any()))
    return felt


@pytest.mark.parametrize("chunk", [1, 2, 3, 4])
def test_neighbours_reach_no_logit_before_their_chunk_is_complete(chunk):
    ids, neighbours = batch(rows=1)
    felt = gradients_of_neighbours(tiny(), ids, neighbours, chunk)
    assert felt == [t >= chunk * M - 1 for t in range(18)]


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_cross_attention_alone_reaches_one_chunk(chunk):
    """With the last layer the only one that attends to neighbours, nothing carries them on."""
    ids, neighbours = batch(rows=1)
    felt = gradients_of_neighbours(tiny(cross_layers=[3]), ids, neighbours, chunk)
    assert felt == [chunk * M - 1 <= t <= chunk * M + M - 2 for t in range(18)]


@torch.no_grad()
def test_other_neighbours_give_other_logits():
    model, (ids, neighbours) = tiny(), batch()
    one, other = (model(ids, neighbour_ids=n).logits for n in (neighbours, neighbours.flip(-1)))
    assert_close(one[:, : M - 1], other[:, : M - 1], rtol=0, atol=0)
    assert ((one - other)[:, M - 1 :].abs().amax(-1) > 1e-4).all()
    assert ((one - model(ids).logits)[:, M - 1 :].abs().amax(-1) > 1e-4).all()


@torch.no_grad()
def test_the_order_of_neighbours_does_not_matter():
    model, (ids, neighbours) = tiny(), batch()
    swapped = model(ids, neighbour_ids=neighbours.flip(2)).logits
    assert_close(swapped, model(ids, neighbour_ids=neighbours).logits, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_a_chunk_stands_beside_its_neighbours():
    """Its last token at the place of the last token of a neighbour that is a chunk long, the next one after it."""
    model, (ids, neighbours), places = tiny(), batch(), []
    for block in model.model.layers:
        if block.cross_attn is not None:
            block.cross_attn.register_forward_pre_hook(lambda module, inputs: places.append(inputs[4]))
    model(ids, neighbour_ids=neighbours)
    expected = rotary_angles((torch.arange(18)[None] + 1) % M + M - 1, model.config.head_dim, torch.float32)
    assert len(places) == 2
    for got in places:
        assert_close(got, tuple(z.expand(2, -1, -1) for z in expected))


@torch.no_grad()
def test_without_output_of_cross_attention_it_is_the_plain_decoder():
    model, (ids, neighbours) = tiny(), batch()
    for block in model.model.layers:
        if block.cross_attn is not None:
            block.cross_attn.o_proj.weight.zero_()
    assert torch.equal(model(ids, neighbour_ids=neighbours).logits, model(ids).logits)


@torch.no_grad()
def test_missing_neighbours_are_no_neighbours():
    """None at all, -1 throughout, a mask of zeros, fewer chunks than the text has: without NaN, and all alike."""
    model, (ids, neighbours) = tiny(), batch()
    plain = model(ids).logits
    none = torch.full_like(neighbours, -1)
    assert_close(model(ids, neighbour_ids=none).logits, plain)
    assert_close(model(ids, neighbour_ids=neighbours, neighbour_mask=torch.zeros_like(neighbours)).logits, plain)
    assert_close(model(ids, neighbour_ids=neighbours[:, :0]).logits, plain)
    some = neighbours.clone()
    some[:, 2:] = -1
    expected = model(ids, neighbour_ids=some).logits
    assert_close(model(ids, neighbour_ids=neighbours[:, :2]).logits, expected)
    assert (expected - plain)[:, 2 * M - 1 :].abs().max() > 1e-3


@pytest.mark.parametrize("how", ["mask", "-1"])
def test_short_neighbours_are_as_if_cut(how):
    model, (ids, neighbours) = tiny().train(), batch()
    expected = model(ids, neighbour_ids=neighbours[..., :4]).logits
    mask = torch.ones_like(neighbours)
    mask[..., 4:] = 0
    given = {"neighbour_ids": neighbours, "neighbour_mask": mask}
    if how == "-1":
        given = {"neighbour_ids": neighbours.masked_fill(mask == 0, -1)}
    got = model(ids, **given)
    assert_close(got.logits, expected, atol=2e-5, rtol=1e-4)
    given["neighbour_ids"][1, 1] = -1
    for module in model.modules():
        if hasattr(module, "q_proj"):
            module.dropout = 0.1  # the way of training with dropout has no net under rows where all is masked
    model(ids, labels=ids, **given).loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_chunks_count_real_tokens(side):
    model, (ids, neighbours) = tiny(), batch()
    pads, mask = torch.full((2, 3), 4), torch.ones_like(ids)
    order = (pads, ids) if side == "left" else (ids, pads)
    masks = (torch.zeros_like(pads), mask) if side == "left" else (mask, torch.zeros_like(pads))
    wide, mask = torch.cat(order, 1), torch.cat(masks, 1)
    got = model(wide, attention_mask=mask, neighbour_ids=neighbours).logits[mask.bool()].view(2, 18, -1)
    assert_close(got, model(ids, neighbour_ids=neighbours).logits, atol=2e-5, rtol=1e-4)
    found = model(wide, attention_mask=mask, retriever=oracle).logits[mask.bool()].view(2, 18, -1)
    assert_close(found, model(ids, neighbour_ids=all_neighbours(ids)).logits, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_rows_of_different_lengths_share_a_batch():
    model, (ids, _) = tiny(), batch()
    mask = torch.ones_like(ids)
    mask[1, :7] = 0
    got = model(ids, attention_mask=mask, retriever=oracle).logits
    short = ids[1:, 7:]
    assert_close(got[:1], model(ids[:1], neighbour_ids=all_neighbours(ids[:1])).logits, atol=2e-5, rtol=1e-4)
    assert_close(got[1:, 7:], model(short, neighbour_ids=all_neighbours(short)).logits, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_packed_documents_have_their_own_chunks():
    model, (ids, neighbours) = tiny(), batch(rows=1)
    positions = torch.cat((torch.arange(6), torch.arange(12)))[None]
    packed = model(ids, position_ids=positions, neighbour_ids=neighbours).logits
    first = model(ids[:, :6], neighbour_ids=neighbours[:, :1]).logits
    second = model(ids[:, 6:], neighbour_ids=neighbours[:, 1:]).logits
    assert_close(packed, torch.cat((first, second), 1), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("sizes", [(1,) * 18, (5, 1, 1, 1, 1, 9), (3, 15), (4, 4, 10), (17, 1)])
@pytest.mark.parametrize("given", ["neighbours", "retriever"])
@torch.no_grad()
def test_cached_pieces_match_one_forward(sizes, given):
    model, (ids, _) = tiny(), batch()
    neighbours = all_neighbours(ids)
    options = {"neighbour_ids": neighbours} if given == "neighbours" else {"retriever": oracle}
    cache, pieces = None, []
    for piece in ids.split(sizes, dim=1):
        outputs = model(piece, past_key_values=cache, use_cache=True, **options)
        cache = outputs.past_key_values
        pieces.append(outputs.logits)
    assert_close(torch.cat(pieces, 1), model(ids, neighbour_ids=neighbours).logits, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
@torch.no_grad()
def test_generation_retrieves_once_a_chunk(beams):
    """Rows that are at different places of their chunks, over several borders."""
    model, (ids, _) = tiny(), batch()
    mask = torch.ones_like(ids)
    mask[1, :7] = 0
    asked = []

    def retriever(chunks):
        asked.append(len(chunks))
        return oracle(chunks)

    options = {"max_new_tokens": 11, "do_sample": False, "eos_token_id": None, "pad_token_id": 0, "num_beams": beams}
    got = model.generate(ids, attention_mask=mask, retriever=retriever, **options)
    assert sum(asked) == ((28 // M) + (21 // M)) * beams  # of the prompt and of what was written, but its last token
    for row, start in ((0, 0), (1, 7)):
        alone = model.generate(ids[row : row + 1, start:], retriever=oracle, use_cache=False, **options)
        assert torch.equal(got[row : row + 1, start:], alone)
        other = model.generate(ids[row : row + 1, start:], use_cache=False, **options)
        assert not torch.equal(alone, other)


@torch.no_grad()
def test_what_a_cache_holds_goes_on_without_new_neighbours():
    model, (ids, neighbours) = tiny(), batch()
    outputs = model(ids[:, :10], neighbour_ids=neighbours[:, :2], use_cache=True)
    rest = model(ids[:, 10:], past_key_values=outputs.past_key_values, use_cache=True)
    expected = model(ids, neighbour_ids=neighbours[:, :2]).logits
    assert_close(torch.cat((outputs.logits, rest.logits), 1), expected, atol=2e-5, rtol=1e-4)


def test_wrong_use_is_named():
    model, (ids, neighbours) = tiny(), batch()
    with pytest.raises(ValueError, match="not both"):
        model(ids, neighbour_ids=neighbours, retriever=oracle)
    with pytest.raises(ValueError, match="rows, chunks, neighbours, tokens"):
        model(ids, neighbour_ids=neighbours[:, 0])
    with pytest.raises(ValueError, match="shape of neighbour_ids"):
        model(ids, neighbour_ids=neighbours, neighbour_mask=neighbours[:, :1])
    with pytest.raises(ValueError, match="retriever must return token ids"):
        model(ids, retriever=lambda chunks: chunks.float())
    with pytest.raises(ValueError, match="needs input_ids"):
        model(inputs_embeds=model.get_input_embeddings()(ids), retriever=oracle)
    with pytest.raises(ValueError, match="StaticCache cannot hold neighbours"):
        model(ids, neighbour_ids=neighbours, past_key_values=StaticCache(config=model.config, max_cache_len=32))
    with pytest.raises(ValueError, match="512 is outside the vocabulary"):
        model(ids, neighbour_ids=neighbours.clamp_min(512))
    plain = model(ids[:, :5], use_cache=True).past_key_values
    with pytest.raises(ValueError, match="from the first token on"):
        model(ids[:, 5:], past_key_values=plain, neighbour_ids=neighbours)
    started = model(ids[:, :5], neighbour_ids=neighbours, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="must have 12 tokens in all"):
        model(ids[:, 5:], past_key_values=started, neighbour_ids=neighbours[..., :5])
    with pytest.raises(ValueError, match="cannot be taken back"):
        started.crop(-1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cross_layers": [2]}, "cross_layers must be different layers of 0 to num_hidden_layers - 1 = 1"),
        ({"cross_layers": []}, "cross_layers"),
        ({"encoder_cross_layers": [0, 0]}, "encoder_cross_layers"),
        ({"encoder_head_dim": 5}, "encoder_head_dim must be even"),
        ({"block_layout": "parallel"}, "no place between attention and MLP"),
    ],
)
def test_configs_that_do_not_fit_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        hf_zoo.create_config("retro-tiny", **fields)


def test_published_layers_attend_to_neighbours():
    one_based = {
        name: [i + 1 for i in hf_zoo.create_config(name).cross_layers] for name in ("retro-172m", "retro-1.5b")
    }
    assert one_based == {"retro-172m": [6, 9, 12], "retro-1.5b": [9, 12, 15, 18, 21, 24]}


LAYOUTS = [
    {},
    {"block_layout": "post", "norm": "layer_norm"},
    {"block_layout": "output", "positions": "alibi"},
    {"positions": "learned", "tie_word_embeddings": True},
    {"sliding_window": 6, "attention_softmax": "off_by_one"},
]
ENCODER = {"encoder_hidden_size": 32, "encoder_intermediate_size": 48, "num_encoder_heads": 2}


@pytest.mark.parametrize("fields", LAYOUTS, ids=str)
def test_a_retrofitted_decoder_starts_as_itself(fields, tmp_path):
    torch.manual_seed(0)
    dense = hf_zoo.create_model("llm-tiny", **fields).eval()
    model = hf_zoo.as_retro(dense, chunk_size=M, **ENCODER)
    ids, neighbours = batch()
    with torch.no_grad():
        expected = dense(ids).logits
        assert torch.equal(model(ids).logits, expected)
        assert torch.equal(model(ids, neighbour_ids=neighbours).logits, expected)
    kept = set(dense.state_dict())
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (name not in kept), name
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(2):  # from zero on, the encoder learns from the second step
        optimizer.zero_grad()
        model(ids, labels=ids, neighbour_ids=neighbours).loss.backward()
        optimizer.step()
    assert all(p.grad.abs().max() > 0 for p in model.parameters() if p.requires_grad)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, expected)  # the decoder itself has not changed
        changed = model(ids, neighbour_ids=neighbours).logits
        assert not torch.equal(changed, expected)
        model.save_pretrained(tmp_path)
        again = type(model).from_pretrained(tmp_path).eval()
        assert_close(again(ids, neighbour_ids=neighbours).logits, changed)


def test_folders_and_other_heads_are_retrofitted(tmp_path):
    dense = hf_zoo.create_model("llm-tiny", task="sequence-classification", num_labels=3).eval()
    model = hf_zoo.as_retro(dense, train_only_new=False, chunk_size=M, **ENCODER)
    assert type(model).__name__ == "ZooRetroForSequenceClassification" and model.config.num_labels == 3
    assert all(p.requires_grad for p in model.parameters())
    hf_zoo.create_model("llm-tiny").save_pretrained(tmp_path)
    assert type(hf_zoo.as_retro(str(tmp_path), **ENCODER)).__name__ == "ZooRetroForCausalLM"
    with pytest.raises(ValueError, match="only zoo_llm can"):
        hf_zoo.as_retro(hf_zoo.create_model("mamba-tiny"))
    with pytest.raises(ValueError, match="chunk_sise.*chunk_size"):
        hf_zoo.as_retro(dense, chunk_sise=8)


def test_the_answer_is_copied_from_a_neighbour():
    """Each chunk is answered by the next one, whose tokens stand nowhere but in the neighbour's continuation."""
    size, vocab, chunks = 4, 24, 3

    def draw(generator, give_neighbours=True):
        ids = torch.randint(1, vocab, (chunks * size,), generator=generator)
        pairs = ids.view(chunks, size)
        answers = torch.cat((pairs[1:], torch.zeros(1, size, dtype=torch.long)))
        neighbours = torch.cat((pairs, answers), 1)[:, None]  # (l, 1, 2 m)
        labels = ids.clone()
        labels[:size] = -100
        row = {"input_ids": ids, "labels": labels}
        return {**row, "neighbour_ids": neighbours} if give_neighbours else row

    torch.manual_seed(0)
    model = hf_zoo.create_model("retro-tiny", vocab_size=vocab, chunk_size=size)
    train(model, draw, steps=160, learning_rate=4e-3, batch_size=32)
    rows = [draw(torch.Generator().manual_seed(10_000 + i)) for i in range(64)]
    held_out = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    @torch.no_grad()
    def accuracy(**inputs):
        guess = model(held_out["input_ids"], **inputs).logits.argmax(-1)[:, size - 1 : -1]
        return (guess == held_out["input_ids"][:, size:]).float().mean().item()

    neighbours = held_out["neighbour_ids"]
    assert accuracy(neighbour_ids=neighbours) > 0.97
    assert accuracy() < 0.2
    assert accuracy(neighbour_ids=neighbours.roll(1, dims=0)) < 0.2
