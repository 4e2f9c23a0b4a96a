"""Indexes: what is found is what a plain product finds; kills and changes lose nothing; the wrong is refused."""

import json
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny import WORDS, bert_folder
from transformers import AutoModel, AutoTokenizer
from typer.testing import CliRunner

import hf_zoo.retrieval.segments as segments
from hf_zoo.cli import app
from hf_zoo.retrieval import Bm25, PassageIndex, ServerIndex, TextEncoder, build_index, evaluate
from hf_zoo.retrieval.approximate import approximate_index, search_faiss
from hf_zoo.retrieval.evaluation import numbers_by_key
from hf_zoo.retrieval.exact import search_exactly
from hf_zoo.retrieval.segments import DamagedIndex

NONE = np.empty(0, np.int64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("bert") / "model")


@pytest.fixture(scope="module")
def encoder(folder):
    return TextEncoder.from_pretrained(str(folder))


def rows(start, stop):
    texts = [" ".join(WORDS[(i * j + i) % len(WORDS)] for j in range(2 + i % 9)) + f" {i}" for i in range(start, stop)]
    return Dataset.from_dict({"id": list(range(start, stop)), "text": texts})


@pytest.fixture
def index(tmp_path, encoder, monkeypatch):
    monkeypatch.setattr(segments, "BLOCK", 16)
    return build_index(rows(0, 50), encoder, tmp_path / "index")


def vectors(n, d=16, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


@pytest.mark.parametrize("num_rows", [1, 5, 63, 64, 65, 3000, 20_000])
@pytest.mark.parametrize("num_questions", [1, 3])
def test_exact_search_is_the_sorted_product(num_rows, num_questions, monkeypatch):
    monkeypatch.setattr("hf_zoo.retrieval.exact._SCORES", 3 * 4096)  # several blocks
    x, q = vectors(num_rows), vectors(num_questions, seed=1)
    half = num_rows // 2
    scores, found = search_exactly(q, [(0, x[:half]), (half, x[half:])], NONE, 5)
    product = q @ x.T
    expected = np.argsort(-product, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(scores, np.take_along_axis(product, expected, 1), rtol=1e-5, atol=1e-5)


def test_deleted_rows_are_not_found_whatever_is_asked():
    x, q = vectors(300), vectors(2, seed=1)
    deleted = np.array([0, 7, 150, 151, 299])
    _, found = search_exactly(q, [(0, x[:150]), (150, x[150:])], deleted, 300)
    assert found.shape == (2, 295) and not np.isin(found, deleted).any()


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "pooler"])
def test_vectors_are_those_of_the_texts_alone(folder, pooling):
    encoder = TextEncoder.from_pretrained(str(folder), pooling=pooling)
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    texts = rows(0, 7)["text"][:]
    for text, vector in zip(texts, encoder.passages(texts, batch_size=3), strict=True):
        with torch.no_grad():
            outputs = model(**tokenizer(text, return_tensors="pt"))
        x = outputs.last_hidden_state[0]
        alone = {"mean": x.mean(0), "cls": x[0], "last": x[-1], "pooler": outputs.pooler_output[0]}[pooling]
        np.testing.assert_allclose(vector, alone.numpy(), atol=2e-6)


def test_normalised_vectors_have_length_one(folder):
    encoder = TextEncoder.from_pretrained(str(folder), is_normalised=True)
    np.testing.assert_allclose(np.linalg.norm(encoder.questions(["the cat", "a mat"]), axis=1), 1, rtol=1e-6)


def test_an_unknown_pooling_names_the_nearest(folder):
    with pytest.raises(ValueError, match="unknown pooling 'men'. Did you mean 'mean'"):
        TextEncoder.from_pretrained(str(folder), pooling="men")


def test_an_index_finds_each_passage_by_itself(index, encoder):
    texts = rows(0, 50)["text"][:]
    made = encoder.passages(texts)
    np.testing.assert_allclose(index.vectors(range(50)), made, atol=2e-6)
    found = index.search_vectors(made, k=3)[1]
    np.testing.assert_array_equal(found[:, 0], (made @ made.T).argmax(1))
    hit = index.search([texts[7]], k=50)[0]
    assert {h.number for h in hit} == set(range(50)) and hit[0].passage["text"] == texts[hit[0].number]


def test_a_title_goes_before_the_text(tmp_path, encoder):
    data = Dataset.from_dict({"title": ["cat", "mat"], "text": ["sat", "flew"]})
    index = build_index(data, encoder, tmp_path / "i", title_column="title")
    np.testing.assert_allclose(index.vectors([0, 1]), encoder.passages(["cat[SEP]sat", "mat[SEP]flew"]), atol=2e-6)


def test_half_precision_halves_the_file(tmp_path, encoder, index):
    small = build_index(rows(0, 50), encoder, tmp_path / "small", dtype="float16")
    np.testing.assert_allclose(small.vectors(range(50)), index.vectors(range(50)), atol=2e-3)
    sizes = [(i.folder / "segments/000000/vectors.npy").stat().st_size - 128 for i in (small, index)]
    assert sizes[0] * 2 == sizes[1]


class Killed(RuntimeError):
    pass


class DiesAfter:
    """An encoder whose process is killed after some calls."""

    def __init__(self, encoder, calls):
        self.encoder, self.calls, self.seen = encoder, calls, 0

    def __getattr__(self, name):
        return getattr(self.encoder, name)

    def passages(self, texts, batch_size=32):
        if self.seen == self.calls:
            raise Killed
        self.seen += 1
        return self.encoder.passages(texts, batch_size)


def test_a_build_that_was_killed_goes_on_to_the_same_bits(tmp_path, encoder, index):
    half = DiesAfter(encoder, 2)
    with pytest.raises(Killed):
        build_index(rows(0, 50), half, tmp_path / "again")
    with pytest.raises(ValueError, match="half built"):
        PassageIndex.open(tmp_path / "again")
    rest = DiesAfter(encoder, 99)
    again = build_index(rows(0, 50), rest, tmp_path / "again")
    assert rest.seen == 2  # of four blocks
    name = "segments/000000/vectors.npy"
    assert (again.folder / name).read_bytes() == (index.folder / name).read_bytes()


def test_a_half_built_index_refuses_other_texts(tmp_path, encoder, index):
    with pytest.raises(Killed):
        build_index(rows(0, 50), DiesAfter(encoder, 2), tmp_path / "again")
    with pytest.raises(ValueError, match="half built with texts="):
        build_index(rows(1, 51), encoder, tmp_path / "again")
    with pytest.raises(ValueError, match="half built with rows=50"):
        build_index(rows(0, 51), encoder, tmp_path / "again")


def test_nothing_is_overwritten(index, encoder, tmp_path):
    with pytest.raises(ValueError, match="not empty"):
        build_index(rows(0, 5), encoder, index.folder)
    with pytest.raises(ValueError, match="not empty"):
        index.save(index.folder)


def test_additions_and_deletions_lose_nothing(index, encoder):
    before = index.vectors(range(50))
    index.delete([3, 49])
    index.add(rows(50, 70))
    index.delete([3, 60])
    opened = PassageIndex.open(index.folder, encoder, check=True)
    for i in (index, opened):
        assert len(i) == 67 and i.num_rows == 70
        np.testing.assert_array_equal(i.deleted, [3, 49, 60])
        np.testing.assert_array_equal(i.vectors(range(50)), before)
        assert [i[n]["id"] for n in (0, 3, 49, 50, 69)] == [0, 3, 49, 50, 69]
        assert set(i.search_vectors(before[:1], k=100)[1][0]) == set(i.numbers().tolist())
        assert i.passages()["id"] == i.numbers().tolist()


def test_an_addition_that_was_killed_leaves_the_index_as_it_was(index, encoder):
    index.encoder = DiesAfter(encoder, 1)
    with pytest.raises(Killed):
        index.add(rows(50, 90))
    opened = PassageIndex.open(index.folder, encoder, check=True)
    assert len(opened) == 50
    opened.add(rows(50, 90))
    assert len(PassageIndex.open(index.folder, encoder, check=True)) == 90


def test_two_that_change_an_index_keep_what_the_other_did(index, encoder):
    other = PassageIndex.open(index.folder, encoder)
    index.add(rows(50, 60))
    other.delete([1])
    other.add(rows(60, 70))
    index.delete([2])
    opened = PassageIndex.open(index.folder)
    assert opened.num_rows == 70 and opened.deleted.tolist() == [1, 2]


def test_a_wrong_number_deletes_nothing(index):
    with pytest.raises(IndexError, match="passage 50 is not in the index, which has numbers 0 to 49"):
        index.delete([1, 50])
    assert len(index) == 50


def test_another_encoder_is_refused(index, folder, encoder):
    with pytest.raises(ValueError, match="pooling='mean', not by .* 'cls'"):
        PassageIndex.open(index.folder, TextEncoder.from_pretrained(str(folder), pooling="cls"))
    changed = TextEncoder.from_pretrained(str(folder))
    with torch.no_grad():
        next(changed.model.parameters()).mul_(1.01)
    with pytest.raises(ValueError, match="fingerprint"):
        PassageIndex.open(index.folder, changed)
    with pytest.raises(ValueError, match=r"\(Q, 32\) as the index has, got \(1, 8\)"):
        index.search_vectors(vectors(1, 8))


@pytest.mark.parametrize("file", ["segments/000000/vectors.npy", "segments/000000/segment.json", "index.json"])
def test_a_file_that_was_cut_off_is_refused(index, file):
    path = index.folder / file
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DamagedIndex, match="build the index again"):
        PassageIndex.open(index.folder)


def test_missing_passages_are_refused(index):
    shutil.rmtree(index.folder / "segments/000000/passages")
    with pytest.raises(DamagedIndex, match="passages cannot be read"):
        PassageIndex.open(index.folder)


def test_a_changed_number_is_found_by_a_check(index):
    path = index.folder / "segments/000000/vectors.npy"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    PassageIndex.open(index.folder)
    with pytest.raises(DamagedIndex, match="has changed"):
        PassageIndex.open(index.folder, check=True)


def test_a_folder_without_an_index_says_so(tmp_path):
    with pytest.raises(ValueError, match="holds no index"):
        PassageIndex.open(tmp_path)


def test_columns_are_checked_before_any_work(tmp_path, encoder):
    with pytest.raises(ValueError, match="no column 'body'; it has id, text"):
        build_index(rows(0, 3), encoder, tmp_path / "i", column="body")
    with pytest.raises(ValueError, match="no rows"):
        build_index(rows(0, 0), encoder, tmp_path / "i")
    assert not (tmp_path / "i").exists()


def test_an_index_travels_beside_its_model(index, encoder, folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "model")
    index.delete([4])
    index.save(tmp_path / "model" / "index")
    opened = PassageIndex.open(tmp_path / "model", encoder, check=True)
    assert len(opened) == 49 and opened.search(["the cat"])[0] == index.search(["the cat"])[0]
    calls = []
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", lambda self, name, **_: calls.append(name))
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", lambda self, **options: calls.append(options))
    opened.push_to_hub("me/model")
    assert calls[0] == "me/model" and calls[1]["path_in_repo"] == "index" and calls[1]["folder_path"] == opened.folder


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_an_approximate_search_finds_most(kind):
    """Vectors in clusters, as those of an encoder that was trained; seeds 0 to 5 give 0.985 and more."""
    pytest.importorskip("faiss", reason="approximate search needs the extra retrieval")
    random = np.random.default_rng(0)
    centres = random.normal(size=(60, 32))
    vectors = (centres[random.integers(60, size=4000)] + 0.4 * random.normal(size=(4000, 32))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    questions = (vectors[:200] + 0.02 * random.normal(size=(200, 32))).astype(np.float32)
    exact = np.argsort(-(questions @ vectors.T), axis=1)[:, :5]
    index = approximate_index(kind, [vectors[:1500], vectors[1500:]])
    found = search_faiss(index, questions, np.empty(0, np.int64), 5)[1]
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(found, exact, strict=True)]) > 0.93
    gone = np.unique(found[:, 0])
    assert not np.isin(search_faiss(index, questions, gone, 5)[1], gone).any()


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_an_approximate_index_never_finds_the_deleted(tmp_path, folder, kind):
    pytest.importorskip("faiss", reason="approximate search needs the extra retrieval")
    encoder = TextEncoder.from_pretrained(str(folder), is_normalised=True)
    index = build_index(rows(0, 200), encoder, tmp_path / "index")
    index.approximate(kind)
    opened = PassageIndex.open(index.folder, encoder)
    found = opened.search_vectors(index.vectors(range(100, 120)), k=5)[1]
    opened.delete(found[:, 0])
    again = opened.search_vectors(index.vectors(range(100, 120)), k=5)[1]
    assert not np.isin(again, found[:, 0]).any()
    opened.add(rows(200, 230))
    newest = opened.search_vectors(opened.vectors([215]), k=230)[1]
    assert 215 in newest
    (opened.folder / "approximate.faiss").unlink()  # to cut off what is mapped would end the process
    with pytest.raises(DamagedIndex, match="approximate"):
        PassageIndex.open(index.folder, encoder).search(["the cat"])


def test_bm25_ranks_by_rare_shared_words():
    pytest.importorskip("bm25s", reason="BM25 needs the extra retrieval")
    texts = ["open a file and read it", "close the door", "read the book and read on", "file a claim"]
    scores, found = Bm25(texts).search(["how do I open a file", "door"], k=4)
    assert found[0][:2].tolist() == [0, 3] and found[1][0] == 1
    assert (np.diff(scores, axis=1) <= 0).all()


def test_measures_of_a_search():
    found = np.array([[3, 1, 2], [0, 5, 4], [9, 8, 7]])
    measured = evaluate(found, [3, [4, 5], 1], ks=(1, 3))
    assert measured == {"recall@1": 1 / 3, "recall@3": 2 / 3, "mrr@3": pytest.approx((1 + 1 / 2) / 3)}
    assert numbers_by_key(rows(10, 13), np.array([4, 5, 6]), "id", [12, 10]) == [[6], [4]]
    with pytest.raises(ValueError, match="no passage has id=99"):
        numbers_by_key(rows(10, 13), np.array([4, 5, 6]), "id", [12, 99])


def run(*arguments):
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_builds_searches_measures_and_changes(tmp_path, folder):
    pytest.importorskip("bm25s", reason="BM25 needs the extra retrieval")
    rows(0, 30).to_json(tmp_path / "passages.jsonl")
    rows(30, 40).to_json(tmp_path / "more.jsonl")
    rows(0, 30).rename_column("text", "question").to_json(tmp_path / "asked.jsonl")
    index = tmp_path / "index"
    assert "30 passages" in run("index", "build", tmp_path / "passages.jsonl", index, "--encoder", folder)
    text = rows(0, 30)["text"][12]
    assert text in run("index", "search", index, text, "-k", 3)
    measured = run("index", "eval", index, tmp_path / "asked.jsonl", "--split", "train", "--bm25")
    assert "30 questions" in measured and "BM25" in measured
    assert "40 passages" in run("index", "add", index, tmp_path / "more.jsonl")
    assert "38 passages" in run("index", "delete", index, 0, 39)
    assert "ivf" in run("index", "approximate", index, "ivf")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def server(tmp_path):
    pytest.importorskip("chromadb", reason="a vector database needs the extra vector-database")
    command = shutil.which("chroma", path=str(sys.prefix) + "/bin")
    if command is None:
        pytest.skip("the chroma server is not installed; pip install chromadb brings it")
    port = free_port()
    process = subprocess.Popen(
        [command, "run", "--path", str(tmp_path / "chroma"), "--port", str(port), "--host", "127.0.0.1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(600):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait()


@pytest.mark.slow
def test_a_vector_database_finds_what_a_folder_finds(server, index, encoder, folder):
    remote = ServerIndex(server, "passages", encoder)
    remote.add(rows(0, 50))
    assert len(remote) == 50
    for ours, theirs in zip(
        index.search(["the cat", "green hills"]), remote.search(["the cat", "green hills"]), strict=True
    ):
        assert [h.number for h in ours] == [h.number for h in theirs]
        np.testing.assert_allclose([h.score for h in ours], [h.score for h in theirs], atol=1e-4)
        assert ours[0].passage == theirs[0].passage
    gone = ours[0].number
    remote.delete([gone])
    assert gone not in [h.number for h in remote.search(["green hills"])[0]]
    with pytest.raises(ValueError, match="pooling"):
        ServerIndex(server, "passages", TextEncoder.from_pretrained(str(folder), pooling="cls"))


def test_a_vector_database_that_does_not_answer_is_named(encoder):
    pytest.importorskip("chromadb", reason="a vector database needs the extra vector-database")
    with pytest.raises(ConnectionError, match="no Chroma server answers at http://127.0.0.1:"):
        ServerIndex(f"http://127.0.0.1:{free_port()}", "passages", encoder)
    with pytest.raises(ValueError, match="url must be like"):
        ServerIndex("localhost", "passages", encoder)


def test_the_record_names_the_encoder(index, folder):
    record = json.loads((index.folder / "index.json").read_text())
    assert record["encoder"]["name"] == str(folder) and record["column"] == "text"
