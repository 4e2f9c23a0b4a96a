"""What is special to the dual encoder: its loss, its parts, transformers' folders, several processes."""

import subprocess
import sys

import pytest
import torch
import transformers
from tiny import WORDS, bert_folder
from torch.nn import functional as F
from torch.testing import assert_close

import hf_zoo
from hf_zoo.modeling.dpr.configuration_dpr import ZooDprConfig
from hf_zoo.modeling.dpr.modeling_dpr import ZooDprForQuestionAnswering, ZooDprModel
from hf_zoo.retrieval import TextEncoder, open_dpr, open_dpr_reader
from hf_zoo.retrieval.collators import ReaderCollator, RetrievalCollator

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 97,
}


def make(**options):
    torch.manual_seed(0)
    return ZooDprModel(ZooDprConfig(question_config={"model_type": "zoo_mlm", **SIZES}, **options)).eval()


def ids(rows, tokens=9, seed=0):
    return torch.randint(5, 97, (rows, tokens), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("options", [{}, {"similarity": "cosine", "temperature": 0.05}, {"projection_dim": 12}])
@torch.no_grad()
def test_the_loss_is_that_of_finding_the_passage(options):
    model, questions, passages = make(**options), ids(4), ids(12, seed=1)
    out = model(questions, passage_input_ids=passages)
    q, p = model.embed_questions(questions), model.embed_passages(passages)
    scores = (q[:, None] * p).sum(-1) / options.get("temperature", 1.0)
    expected = -scores.log_softmax(1)[torch.arange(4), torch.arange(4) * 3].mean()
    assert_close(out.loss, expected)
    assert_close(out.scores, scores)
    assert q.shape == (4, options.get("projection_dim", 32))
    if "similarity" in options:
        assert_close(q.norm(dim=1), torch.ones(4))
    labels = torch.tensor([11, 0, 5, 5])
    named = model(questions, passage_input_ids=passages, labels=labels).loss
    assert_close(named, F.cross_entropy(scores, labels))


@torch.no_grad()
def test_the_vector_is_that_of_the_first_token_without_a_pooler():
    model = make()
    x = model.question_tower.encoder(ids(3)).last_hidden_state
    assert_close(model(ids(3)).question_embeds, x[:, 0])
    assert not any("pooler" in name for name, _ in model.named_parameters())


@torch.no_grad()
def test_copies_of_the_own_passage_are_no_wrong_answers():
    model, questions = make(), ids(3)
    passages = ids(3, seed=1)
    passages[2] = passages[0]
    out = model(questions, passage_input_ids=passages, passage_ids=torch.tensor([7, 8, 7]))
    assert out.scores.isinf().tolist() == [[False, False, True], [False, False, False], [True, False, False]]
    alone = model(questions[:2], passage_input_ids=passages[:2]).scores
    assert_close(out.scores[0, :2], alone[0])
    assert out.loss < model(questions, passage_input_ids=passages).loss


def test_gradients_reach_both_towers_and_sharing_makes_them_one():
    apart, shared = make(), make(share_encoders=True)
    for model in (apart, shared):
        model(ids(3), passage_input_ids=ids(3, seed=1)).loss.backward()
        assert all(p.grad is not None for p in model.parameters())
    assert apart.num_parameters() == 2 * shared.num_parameters()
    x = ids(3)
    assert_close(shared.embed_questions(x), shared.embed_passages(x))
    assert (apart.embed_questions(x) - apart.embed_passages(x)).abs().max() > 1e-2


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match="5 passages do not fall evenly to 3 questions"):
        make()(ids(3), passage_input_ids=ids(5))
    small = {"model_type": "zoo_mlm", **SIZES, "hidden_size": 16}
    with pytest.raises(ValueError, match="hidden sizes 32 and 16 of the two encoders differ: set projection_dim"):
        make(passage_config=small)
    assert make(passage_config=small, projection_dim=8)(ids(2), passage_input_ids=ids(2)).scores.shape == (2, 2)
    with pytest.raises(ValueError, match="share_encoders needs one config"):
        make(passage_config=small, projection_dim=8, share_encoders=True)
    with pytest.raises(ValueError, match="question_config has model_type 'bart2'"):
        ZooDprConfig(question_config={"model_type": "bart2"})
    with pytest.raises(ValueError, match="question_config needs a model_type"):
        ZooDprConfig(question_config={"hidden_size": 3})


MAMBA = {"model_type": "zoo_mamba", "hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 97}


@pytest.mark.parametrize("part", [{"model_type": "bert", **SIZES}, MAMBA])
def test_any_encoder_is_a_part(part, tmp_path):
    model = ZooDprModel(ZooDprConfig(question_config=part, pooling="last")).eval()
    model.save_pretrained(tmp_path)
    again = transformers.AutoModel.from_pretrained(tmp_path).eval()
    assert type(again.question_tower.encoder) is type(model.question_tower.encoder)
    assert_close(again(ids(2)).question_embeds, model(ids(2)).question_embeds)


def test_resizing_makes_room_in_both_towers():
    model = make()
    before = model(ids(2)).question_embeds
    model.resize_token_embeddings(120)
    assert [t.encoder.get_input_embeddings().num_embeddings for t in (model.question_tower, model.passage_tower)] == [
        120
    ] * 2
    assert model.config.vocab_size == 120
    assert_close(model(ids(2)).question_embeds, before)


def redrawn(model):
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.15)
    return model.eval()


@pytest.mark.parametrize("projection_dim", [0, 12])
@torch.no_grad()
def test_folders_of_dpr_open_with_the_same_vectors(tmp_path, projection_dim):
    config = transformers.DPRConfig(**SIZES, projection_dim=projection_dim)
    question = redrawn(transformers.DPRQuestionEncoder(config))
    passage = redrawn(transformers.DPRContextEncoder(config))
    passage.ctx_encoder.bert_model.embeddings.word_embeddings.weight.mul_(1.1)
    question.save_pretrained(tmp_path / "q")
    passage.save_pretrained(tmp_path / "p")
    model = open_dpr(tmp_path / "q", tmp_path / "p")
    x, mask = ids(3), torch.ones(3, 9, dtype=torch.long)
    mask[1, 6:] = 0
    assert_close(model.embed_questions(x, attention_mask=mask), question(x, attention_mask=mask).pooler_output)
    assert_close(model.embed_passages(x, attention_mask=mask), passage(x, attention_mask=mask).pooler_output)
    model.save_pretrained(tmp_path / "ours")
    again = transformers.AutoModel.from_pretrained(tmp_path / "ours")
    assert_close(again.embed_passages(x), model.embed_passages(x))
    with pytest.raises(ValueError, match="holds a DPRContextEncoder, and a DPRQuestionEncoder is needed"):
        open_dpr(tmp_path / "p", tmp_path / "p")


@torch.no_grad()
def test_folders_of_readers_open_with_the_same_logits(tmp_path):
    theirs = redrawn(transformers.DPRReader(transformers.DPRConfig(**SIZES)))
    theirs.save_pretrained(tmp_path)
    ours = open_dpr_reader(tmp_path)
    x = ids(6)
    expected, got = theirs(x), ours(x.view(2, 3, 9))
    assert_close(got.start_logits.flatten(0, 1), expected.start_logits)
    assert_close(got.end_logits.flatten(0, 1), expected.end_logits)
    assert_close(got.relevance_logits.flatten(), expected.relevance_logits)


def test_the_reader_learns_spans_in_the_right_passage_and_which_it_is():
    model = ZooDprForQuestionAnswering(ZooDprConfig(question_config={"model_type": "zoo_mlm", **SIZES})).eval()
    x, start, end, labels = ids(6).view(2, 3, 9), torch.tensor([2, 4]), torch.tensor([3, 8]), torch.tensor([1, 0])
    out = model(x, start_positions=start, end_positions=end, labels=labels)
    rows = torch.arange(2), labels
    spans = F.cross_entropy(out.start_logits[rows], start) + F.cross_entropy(out.end_logits[rows], end)
    assert_close(out.loss, spans / 2 + F.cross_entropy(out.relevance_logits, labels))
    out.loss.backward()
    assert model.qa_classifier.weight.grad.abs().max() > 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("bert") / "model")


def test_collators_make_what_the_models_take(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = [
        {"question": "the cat", "positive": "sat on a mat", "negatives": ["one bird", "two hills"]},
        {"question": "red bird", "positive": "sat on a mat", "negatives": ["it rained", "over"]},
    ]
    batch = RetrievalCollator(tokenizer, num_negatives=1)(rows)
    assert batch["input_ids"].shape[0] == 2 and batch["passage_input_ids"].shape[0] == 4
    assert batch["passage_ids"][0] == batch["passage_ids"][2] != batch["passage_ids"][1]
    assert tokenizer.decode(batch["passage_input_ids"][1], skip_special_tokens=True) == "one bird"
    with pytest.raises(ValueError, match="'the cat' has 2 negatives, and num_negatives is 3"):
        RetrievalCollator(tokenizer, num_negatives=3)(rows)

    rows = [{"question": "who sat", "passages": ["on a mat the cat sat", "it rained"], "answer": "the cat"}] * 2
    batch = ReaderCollator(tokenizer, num_passages=2)(rows)
    assert batch["input_ids"].shape[:2] == (2, 2)
    span = batch["input_ids"][1, 0, batch["start_positions"][1] : batch["end_positions"][1] + 1]
    assert tokenizer.decode(span) == "the cat"
    room = len(tokenizer("who sat")["input_ids"]) + 3
    short = ReaderCollator(tokenizer, num_passages=2, max_length=room)(rows)
    assert short["start_positions"].tolist() == [room, room]  # beyond the row
    with pytest.raises(ValueError, match="does not hold its answer 'dog'"):
        ReaderCollator(tokenizer, num_passages=2)([{**rows[0], "answer": "dog"}])
    with pytest.raises(ValueError, match="has 2 passages, not 3"):
        ReaderCollator(tokenizer, num_passages=3)(rows)


def test_trainer_teaches_it_to_retrieve(folder, tmp_path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pairs = [(f"{a} {b}", f"{b} {a}") for a in WORDS[:8] for b in WORDS[8:16]]
    rows = [{"question": q, "positive": p} for q, p in pairs]
    torch.manual_seed(0)
    sizes = {**SIZES, "vocab_size": len(tokenizer)}
    model = ZooDprModel(ZooDprConfig(question_config={"model_type": "zoo_mlm", **sizes}, pooling="mean"))
    arguments = transformers.TrainingArguments(
        tmp_path, max_steps=60, learning_rate=3e-3, per_device_train_batch_size=32, report_to=[], use_cpu=True,
        remove_unused_columns=False, seed=0,
    )  # fmt: skip
    trainer = transformers.Trainer(model, arguments, train_dataset=rows, data_collator=RetrievalCollator(tokenizer))
    trainer.train()
    encoder = TextEncoder(model, tokenizer)
    assert encoder.pooling == "own"
    scores = encoder.questions([q for q, _ in pairs]) @ encoder.passages([p for _, p in pairs]).T
    found = (scores.argmax(1) == range(len(pairs))).mean()
    assert found > 0.9, found  # 1 / 64 by chance


TWO_PROCESSES = """
import sys, torch
import torch.distributed as dist
import hf_zoo
from hf_zoo.modeling.dpr.configuration_dpr import ZooDprConfig
from hf_zoo.modeling.dpr.modeling_dpr import ZooDprModel
rank = int(sys.argv[1])
torch.manual_seed(0)
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
sizes["vocab_size"] = 97
model = ZooDprModel(ZooDprConfig(question_config={"model_type": "zoo_mlm", **sizes})).eval()
generator = torch.Generator().manual_seed(1)
questions = torch.randint(5, 97, (4, 6), generator=generator)
passages = torch.randint(5, 97, (8, 6), generator=generator)
numbers = torch.arange(8)
numbers[6] = 0
whole = model(questions, passage_input_ids=passages, passage_ids=numbers).loss
whole.backward()
expected = torch.cat([p.grad.flatten() for p in model.parameters()])
model.zero_grad()
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
wrapped = torch.nn.parallel.DistributedDataParallel(model)
part = slice(rank * 2, rank * 2 + 2), slice(rank * 4, rank * 4 + 4)
out = wrapped(questions[part[0]], passage_input_ids=passages[part[1]], passage_ids=numbers[part[1]])
out.loss.backward()
loss = out.loss.detach()
dist.all_reduce(loss)
torch.testing.assert_close(loss / 2, whole.detach())
got = torch.cat([p.grad.flatten() for p in model.parameters()])
torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-4)
print("equal")
"""


@pytest.mark.slow
def test_two_processes_train_as_one_with_both_batches(tmp_path):
    command = [sys.executable, "-c", TWO_PROCESSES]
    runs = [
        subprocess.Popen([*command, str(r), str(tmp_path / "meet")], stdout=-1, stderr=-1, text=True) for r in (0, 1)
    ]
    for run in runs:
        out, error = run.communicate(timeout=120)
        assert out.strip() == "equal", error[-2000:]


def test_the_preset_is_a_retriever():
    assert type(hf_zoo.create_model("dpr-tiny")) is ZooDprModel
