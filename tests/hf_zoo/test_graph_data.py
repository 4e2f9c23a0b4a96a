"""The standard library as a graph: what is read of modules, and that questions have one right answer."""

from collections import Counter

import pytest

from hf_zoo.data import load_dataset
from hf_zoo.data.graph import RELATIONS, fact, few_alike, questions_of, triples_of

LIBRARY = {
    "shapes/__init__.py": "from .round import Circle as Ring\n",
    "shapes/base.py": "import shapes\nclass Shape(ValueError):\n    class Inner:\n        pass\n",
    "shapes/round.py": "from . import base\nimport missing\nclass Circle(base.Shape, metaclass=type):\n    pass\n",
    "draw.py": (
        "import shapes.round as r, os.path\nfrom shapes import Ring\n"
        "try:\n    class Pen(Ring): pass\nexcept NameError:\n    class Pen(object): pass\n"
        "class Brush(r.Circle, unknown.Thing, list[int]): pass\n"
        "def f():\n    import shapes.base\n    class Hidden: pass\n"
    ),
    "broken.py": "class Half(",
    "circle.py": "from circle import Self\nclass Odd(Self): pass\n",
}


@pytest.fixture(scope="module")
def triples():
    return triples_of(LIBRARY.items())


def of(triples, relation):
    return {(head, tail) for head, found, tail in triples if found == relation}


def test_what_modules_say(triples):
    assert of(triples, "part of") == {("shapes.base", "shapes"), ("shapes.round", "shapes")}
    assert of(triples, "imports") == {
        *(("shapes", "shapes.round"), ("shapes.base", "shapes"), ("shapes.round", "shapes.base")),
        *(("draw", "shapes.round"), ("draw", "shapes")),
    }
    assert of(triples, "defined in") == {
        *(("shapes.base.Shape", "shapes.base"), ("shapes.round.Circle", "shapes.round")),
        *(("draw.Pen", "draw"), ("draw.Brush", "draw"), ("circle.Odd", "circle")),
    }


def test_bases_are_found_where_they_are_defined(triples):
    """Through other names, other modules and packages that hand them on; not where only importing would tell."""
    assert of(triples, "derives from") == {
        ("shapes.base.Shape", "ValueError"),
        ("shapes.round.Circle", "shapes.base.Shape"),
        ("draw.Pen", "shapes.round.Circle"),
        ("draw.Brush", "shapes.round.Circle"),
    }


def test_every_fact_stands_in_both_directions(triples):
    assert triples == sorted(set(triples))
    for head, relation, tail in triples:
        assert (tail, RELATIONS[relation][0], head) in triples
    assert fact("a.B", "derives from", "C") == "One base class of a.B is C."


def check_questions(rows, triples, most_hops):
    tails = {}
    for head, relation, tail in triples:
        tails.setdefault((head, relation), set()).add(tail)
    for row in rows:
        path, relations = row["path"], row["relations"]
        assert len(path) == row["hops"] + 1 == len(relations) + 1 <= most_hops + 1
        assert path[0] in row["question"] and path[-1] == row["answer"] and len(set(path)) == len(path)
        for head, relation, tail in zip(path[:-1], relations, path[1:], strict=True):
            assert tails[head, relation] == {tail}
    assert max(Counter(row["question"] for row in rows).values()) == 1


def test_questions_have_one_answer(triples):
    rows = list(questions_of(triples, 3))
    check_questions(rows, triples, 3)
    answers = {row["question"]: row["answer"] for row in rows}
    assert answers["What is the base class of the base class of draw.Pen?"] == "shapes.base.Shape"
    assert answers["What is the package of the module of the base class of draw.Pen?"] == "shapes"
    assert "What is the module imported by draw?" not in answers  # there are two
    assert {row["hops"] for row in questions_of(triples, 1)} == {1}


def test_few_questions_of_a_form_have_one_answer():
    rows = [{"question": str(i), "relations": ["part of"], "answer": "a" if i < 20 else "b"} for i in range(23)]
    kept = few_alike(rows)
    assert Counter(row["answer"] for row in kept) == {"a": 5, "b": 3}
    assert [row["question"] for row in few_alike(rows[::-1])] == [row["question"] for row in kept][::-1]


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ZOO_CACHE", str(tmp_path_factory.mktemp("graph")))
        return load_dataset("python-graph-triples", "train"), load_dataset("python-graph")


def test_the_real_library(real):
    facts, questions = real
    triples = list(zip(facts["head"], facts["relation"], facts["tail"], strict=True))
    assert set(facts["relation"]) == set(RELATIONS)
    assert ("json.decoder.JSONDecodeError", "derives from", "ValueError") in triples
    assert ("asyncio.events", "part of", "asyncio") in triples
    names = [set(rows["question"]) for rows in questions.values()]
    assert not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])
    for rows in questions.values():
        check_questions(list(rows), triples, 3)
        assert min(Counter(rows["hops"]).values()) > 50
    forms = Counter((*row["relations"], row["answer"]) for rows in questions.values() for row in rows)
    assert max(forms.values()) <= 5
