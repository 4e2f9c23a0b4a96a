"""Message passing and steps along typed edges against plain loops, gradients too."""

import pytest
import torch
from torch.testing import assert_close

from hf_zoo.modeling.layers.relational import RelationalLayer, follow, segment_softmax

NODES, RELATIONS, EDGES = 7, 3, 15


def graph(seed=0):
    """Edges of which some stand twice and some lead back to where they start; node 6 gets none."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randint(limit, (EDGES,), generator=generator) for limit in (NODES, RELATIONS, NODES - 1)]
    edges = torch.stack(drawn)
    edges[:, 1] = edges[:, 0]
    return edges


def layer(size=6, bases=2):
    torch.manual_seed(1)
    made = RelationalLayer(size, RELATIONS, bases, 1e-6).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.5)
    return made


def by_loop(layer, x, relations, edges):
    rows = []
    for t in range(len(x)):
        into = [(h, r) for h, r, tail in edges.T.tolist() if tail == t]
        message = torch.zeros_like(x[0])
        if into:
            query = layer.q_proj.weight @ x[t]
            scores = [query @ (layer.k_proj.weight @ x[h] + relations[r]) / len(query) ** 0.5 for h, r in into]
            for (h, r), weight in zip(into, torch.softmax(torch.stack(scores), 0), strict=True):
                matrix = sum(c * basis for c, basis in zip(layer.coefficients[r], layer.bases, strict=True))
                message = message + weight * ((x[h] * relations[r]) @ matrix)
        y = x[t] + layer.o_proj.weight @ message
        rows.append(layer.norm.weight * y / (y.square().mean() + 1e-6).sqrt())
    return torch.stack(rows)


def test_messages_are_their_equation_with_gradients():
    made, edges = layer(), graph()
    x = torch.randn(NODES, 6, dtype=torch.double, requires_grad=True)
    relations = torch.randn(RELATIONS, 6, dtype=torch.double, requires_grad=True)
    weights = [x, relations, *made.parameters()]
    got, expected = made(x, relations, edges), by_loop(made, x, relations, edges)
    assert_close(got, expected)
    grads = [torch.autograd.grad((y * torch.arange(6)).sum(), weights) for y in (got, expected)]
    assert_close(*grads)


def test_a_graph_without_edges():
    made, x = layer(), torch.randn(NODES, 6, dtype=torch.double)
    empty = torch.zeros(3, 0, dtype=torch.long)
    assert_close(made(x, torch.randn(RELATIONS, 6).double(), empty), made.norm(x))
    assert not follow(torch.ones(2, NODES) / NODES, torch.ones(2, RELATIONS) / RELATIONS, empty).any()


def test_weights_of_each_group_sum_to_one_however_large_scores_are():
    scores = torch.tensor([1.0, 900.0, 899.0, -900.0, 0.0])
    segments = torch.tensor([0, 1, 1, 3, 0])
    weights = segment_softmax(scores, segments, 4)
    assert_close(torch.zeros(4).index_add(0, segments, weights), torch.tensor([1.0, 1.0, 0.0, 1.0]))
    assert_close(weights[1:3], torch.tensor([1.0, 0.0]).softmax(0))


def dense(p, alpha, edges):
    """One matrix a relation, as many in a cell as there are edges."""
    matrices = torch.zeros(RELATIONS, NODES, NODES, dtype=p.dtype)
    for h, r, t in edges.T.tolist():
        matrices[r, h, t] += 1
    reached = torch.einsum("qh,qr,rht->qt", p, alpha, matrices)
    return reached / reached.sum(-1, keepdim=True)


@pytest.mark.parametrize("seed", range(3))
def test_following_is_its_matrix_form_with_gradients(seed):
    edges = graph(seed)
    torch.manual_seed(seed)
    p, alpha = torch.randn(4, NODES).double().softmax(-1), torch.randn(4, RELATIONS).double().softmax(-1)
    p.requires_grad_(), alpha.requires_grad_()
    got, expected = follow(p, alpha, edges), dense(p, alpha, edges)
    assert_close(got, expected)
    assert_close(got.sum(-1), torch.ones(4).double())
    grads = [torch.autograd.grad((y * torch.arange(NODES)).sum(), (p, alpha)) for y in (got, expected)]
    assert_close(*grads)


def test_little_mass_is_made_whole_and_none_stays_none():
    edges = torch.tensor([[0, 1], [0, 1], [1, 2]])
    alpha = torch.tensor([[1e-7, 1.0, 0.0]])
    assert_close(follow(torch.eye(NODES)[:1], alpha, edges), torch.eye(NODES)[1:2])
    at_end = follow(torch.eye(NODES)[2:3], alpha, edges)
    assert at_end.isfinite().all() and not at_end.any()


def test_gradients_stay_finite_where_almost_nothing_arrives():
    edges = torch.tensor([[0, 1, 2, 0], [0, 0, 0, 1], [1, 2, 3, 2]])
    for share in (1e-8, 1e-12, 1e-16, 1e-30):
        alpha = torch.tensor([[share, share**2, 1.0]], requires_grad=True)
        p = torch.eye(NODES)[:1]
        for _ in range(3):
            p = follow(p, alpha, edges)
        (gradient,) = torch.autograd.grad(p[0, 3].clamp_min(1e-12).log(), alpha)
        assert gradient.isfinite().all()
