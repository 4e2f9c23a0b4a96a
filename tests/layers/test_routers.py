"""Routers against their equations, written out token by token."""

import math

import pytest
import torch
from torch.testing import assert_close
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from hf_zoo.modeling.layers.mixture_of_experts import MixtureOfExperts
from hf_zoo.modeling.layers.routers import (
    BiasBalancedRouter,
    DeepSeekRouter,
    ExpertChoiceRouter,
    GShardRouter,
    HierarchicalRouter,
    MixtralRouter,
    SwitchRouter,
)
from hf_zoo.modeling.layers.routing import balance_loss, router_z_loss, within_capacity

D, E, N = 6, 8, 37
GROUPS = {"num_groups": 4, "topk_group": 2}
ROUTERS = {
    "switch": lambda: SwitchRouter(D, E, 1),
    "gshard": lambda: GShardRouter(D, E, 2),
    "mixtral": lambda: MixtralRouter(D, E, 3),
    "deepseek": lambda: DeepSeekRouter(D, E, 3),
    "deepseek groups": lambda: DeepSeekRouter(D, E, 3, **GROUPS, scaling=16.0),
    "deepseek norm": lambda: DeepSeekRouter(D, E, 3, norm_topk_prob=True),
    "v3": lambda: BiasBalancedRouter(D, E, 3, norm_topk_prob=True, scaling=2.5),
    "v3 groups": lambda: BiasBalancedRouter(D, E, 3, **GROUPS, norm_topk_prob=True, scaling=2.5),
    "hierarchical": lambda: HierarchicalRouter(D, E, 4, **GROUPS),
}


def make(name, seed=0):
    torch.manual_seed(seed)
    router = ROUTERS[name]().double().eval()
    for parameter in router.parameters():
        torch.nn.init.normal_(parameter)
    if isinstance(router, BiasBalancedRouter):
        router.e_score_correction_bias.uniform_(-0.3, 0.3)
        router.pending_load.zero_()
    return router


def tokens(count=N):
    return torch.randn(count, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def largest(scores, count):
    return sorted(range(len(scores)), key=lambda e: -scores[e])[:count]


def by_hand(name, router, x):
    """{expert: weight} of one token, from the sheet's equations."""
    r = (router.weight @ x).tolist()
    total = sum(math.exp(v) for v in r)
    p = [math.exp(v) / total for v in r]
    members = [range(g * 2, g * 2 + 2) for g in range(4)]
    if name == "switch":
        return {e: p[e] for e in largest(p, 1)}
    if name in ("gshard", "mixtral"):
        chosen = largest(p, router.top_k)
        return {e: p[e] / sum(p[c] for c in chosen) for e in chosen}
    if name.startswith("deepseek"):
        allowed = list(p)
        if "groups" in name:
            groups = largest([max(p[e] for e in g) for g in members], 2)
            allowed = [p[e] if e // 2 in groups else 0.0 for e in range(E)]
        chosen = largest(allowed, 3)
        norm = sum(p[c] for c in chosen) if "norm" in name else 1.0
        return {e: p[e] / norm * router.scaling for e in chosen}
    if name.startswith("v3"):
        s = [1 / (1 + math.exp(-v)) for v in r]
        biased = [a + float(b) for a, b in zip(s, router.e_score_correction_bias, strict=True)]
        allowed = list(biased)
        if "groups" in name:
            groups = largest([sum(biased[e] for e in g) for g in members], 2)
            allowed = [biased[e] if e // 2 in groups else -math.inf for e in range(E)]
        chosen = largest(allowed, 3)
        return {e: 2.5 * s[e] / sum(s[c] for c in chosen) for e in chosen}
    u = (router.group_weight @ x).tolist()
    groups = largest(u, 2)
    weights = {}
    for g in groups:
        inside = largest([r[e] for e in members[g]], 2)
        for e in inside:
            share = math.exp(r[2 * g + e]) / sum(math.exp(r[2 * g + c]) for c in inside)
            weights[2 * g + e] = math.exp(u[g]) / sum(math.exp(u[c]) for c in groups) * share
    return weights


@pytest.mark.parametrize("name", ROUTERS)
def test_choices_and_weights_follow_the_equation(name):
    router, x = make(name), tokens()
    routing = router(x)
    for t in range(N):
        got = dict(zip(routing.experts[t].tolist(), routing.weights[t].tolist(), strict=True))
        expected = by_hand(name, router, x[t])
        assert got.keys() == expected.keys()
        assert all(got[e] == pytest.approx(expected[e], rel=1e-10) for e in got)


@pytest.mark.parametrize("name", ROUTERS)
def test_the_gate_learns_as_finite_differences_say(name):
    router, x = make(name), tokens(5)
    target = torch.randn(5, router.top_k, dtype=torch.float64)

    def loss(weight):
        routing = torch.func.functional_call(router, {"weight": weight}, (x,))
        return (routing.weights * target).sum()

    assert torch.autograd.gradcheck(loss, router.weight.detach().requires_grad_())
    loss(router.weight).backward()
    assert router.weight.grad.abs().max() > 1e-6 or name == "hierarchical"


def test_hierarchical_probabilities_are_products_and_add_to_one():
    router, x = make("hierarchical"), tokens()
    routing = router(x)
    group = (x @ router.group_weight.T).softmax(-1)
    inside = (x @ router.weight.T).unflatten(-1, (4, 2)).softmax(-1)
    assert_close(routing.probabilities, (group[..., None] * inside).flatten(1))
    assert_close(routing.probabilities.sum(-1), torch.ones(N, dtype=torch.float64))
    assert_close(routing.weights.sum(-1), torch.ones(N, dtype=torch.float64))
    assert_close(router_z_loss(routing.logits), (x @ router.group_weight.T).logsumexp(-1).square().mean())


# losses


def test_balance_is_one_if_uniform_and_the_number_of_experts_if_collapsed():
    uniform = torch.full((1, 64, E), 1 / E)
    spread = torch.arange(64).remainder(E).view(1, 64, 1)
    assert balance_loss(uniform, spread).item() == pytest.approx(1.0)
    pairs = torch.cat((spread, (spread + 1) % E), dim=-1)
    assert balance_loss(uniform, pairs).item() == pytest.approx(2.0)  # k, in the form of transformers
    collapsed = torch.zeros(1, 64, E)
    collapsed[..., 3] = 1
    assert balance_loss(collapsed, torch.full((1, 64, 1), 3)).item() == pytest.approx(E)


@pytest.mark.parametrize("is_padded", [False, True])
def test_balance_of_mixtral_is_that_of_transformers(is_padded):
    router, x = make("mixtral"), tokens()
    mask = (torch.rand(N, generator=torch.Generator().manual_seed(3)) < 0.6).long() if is_padded else None
    routing = router.train()(x, mask)
    expected = load_balancing_loss_func((routing.logits,), E, 3, None if mask is None else mask[None])
    assert_close(router.balance_loss(routing, mask, 1), expected.double(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ROUTERS)
def test_losses_do_not_see_padding(name):
    router, x = make(name), tokens()
    routing = router(x)
    mask = torch.cat((torch.ones(N), torch.zeros(11)))
    wide = router(torch.cat((x, 9 * torch.randn(11, D, dtype=torch.float64))), mask)
    assert_close(router.balance_loss(wide, mask, 1), router.balance_loss(routing, None, 1))
    assert_close(router_z_loss(wide.logits, mask), router_z_loss(routing.logits))
    assert_close(router_z_loss(routing.logits), routing.logits.exp().sum(-1).log().square().mean())


@pytest.mark.parametrize("name", ["deepseek", "v3"])
def test_balance_of_each_row(name):
    router, x = make(name), tokens(24)
    router.per_sequence = True
    routing, mask = router(x), torch.ones(24)
    mask[20:] = 0  # of the third row
    rows = [router(part) for part in (x[:8], x[8:16], x[16:20])]
    expected = []
    for row in rows:
        f = torch.zeros(E, dtype=torch.float64)
        for e in row.experts.flatten():
            f[e] += E / (3 * len(row.experts))
        expected.append((f * row.probabilities.mean(0)).sum())
    assert_close(router.balance_loss(routing, mask, 3), torch.stack(expected).mean())
    assert_close(router.balance_loss(routing, torch.cat((torch.ones(8), torch.zeros(16))), 3), expected[0])


# capacity and chance


def test_tokens_beyond_the_capacity_get_nothing():
    router = SwitchRouter(E, E, 1, capacity_factor=1.0).double().train()
    router.weight.data = 10 * torch.eye(E, dtype=torch.float64)
    asked = torch.tensor([0] * 9 + [1] * 5 + [2] * 3 + [3] * 3)  # 20 tokens, room for ceil(20 / 8) = 3
    x = torch.eye(E, dtype=torch.float64)[asked]
    routing = router(x)
    kept = routing.weights[:, 0] > 0
    assert int((~kept).sum()) == sum(max(0, n - 3) for n in (9, 5, 3, 3)) == int(routing.num_dropped)
    for e in range(4):
        assert torch.equal(kept[asked == e], torch.arange(int((asked == e).sum())) < 3)  # who comes first
    assert routing.load.tolist() == [9, 5, 3, 3, 0, 0, 0, 0]
    assert (router.eval()(x).weights > 0).all()


def test_padding_takes_no_room():
    router = SwitchRouter(E, E, 1, capacity_factor=1.0).double().train()
    router.weight.data = 10 * torch.eye(E, dtype=torch.float64)
    x = torch.eye(E, dtype=torch.float64)[torch.zeros(16, dtype=torch.long)]
    mask = torch.tensor([0] * 8 + [1] * 8)  # room for ceil(8 / 8) = 1 of the 8 real ones
    routing = router(x, mask)
    assert (routing.weights[:, 0] > 0).nonzero().flatten().tolist() == [8]
    assert (int(routing.num_dropped), routing.load.tolist()) == (7, [8] + [0] * 7)


def test_first_choices_find_room_before_any_second():
    experts = torch.tensor([[0, 1], [0, 1], [1, 0], [1, 0]])
    assert within_capacity(experts, None, 2, 2).tolist() == [[True, False]] * 4
    assert within_capacity(experts, None, 2, 3).tolist() == [[True, True], [True, False], [True, True], [True, False]]


def test_second_experts_take_part_as_often_as_twice_their_weight():
    router = make("gshard").train()
    x = tokens(1).expand(4000, -1)
    torch.manual_seed(0)
    routing = router(x)
    weight = make("gshard")(x[:1]).weights[0]
    first, second = routing.weights.unbind(1)
    assert_close(first, weight[0].expand(4000))
    taken = second > 0
    assert taken.double().mean().item() == pytest.approx(min(1.0, 2 * float(weight[1])), abs=0.03)
    assert_close(second[taken], weight[1].expand(int(taken.sum())))


def test_jitter_reaches_the_router_alone():
    class Sees(torch.nn.Module):
        def forward(self, x, experts, weights):
            self.x = x
            return x

    router = SwitchRouter(D, E, 1, jitter=0.3)
    torch.nn.init.normal_(router.weight)
    experts, x = Sees(), torch.randn(2, 5, D)
    layer = MixtureOfExperts(router, experts).train()
    before = x.clone()
    noisy = layer(x)[1].logits
    assert torch.equal(x, before)
    assert torch.equal(experts.x, x.view(-1, D))
    exact = x.view(-1, D) @ router.weight.T
    assert (noisy - exact).abs().max() > 0
    assert ((noisy - exact).abs() <= 0.3 * x.view(-1, D).abs() @ router.weight.T.abs() + 1e-6).all()
    assert_close(layer.eval()(x)[1].logits, exact)


@pytest.mark.parametrize("name", ROUTERS)
def test_scores_are_exact_under_autocast(name):
    router, x = make(name).float(), tokens().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        routing = router(x)
    assert routing.logits.dtype == torch.float32
    assert torch.equal(routing.logits, router(x).logits)


# routers with a memory


def test_experts_choose_equally_many_tokens():
    router = ExpertChoiceRouter(D, E, 2).double().train()
    torch.nn.init.normal_(router.weight)
    x = tokens()
    routing = router(x)
    scores, taken = (x @ router.weight.T).softmax(-1), math.ceil(N * 2 / E)
    for e in range(E):
        mine = routing.experts[:, 0] == e
        assert int(mine.sum()) == taken
        assert set(routing.tokens[mine].tolist()) == set(scores[:, e].topk(taken).indices.tolist())
        assert_close(routing.weights[mine, 0], scores[routing.tokens[mine], e])
    assert_close(router.observation(routing), scores.topk(taken, dim=0).values[-1])
    assert int(routing.num_dropped) == N - len(routing.tokens.unique())
    mask = torch.tensor([1] * 20 + [0] * (N - 20))
    routing = router(x, mask)
    assert routing.tokens.max() < 20
    assert (routing.experts[:, 0].bincount() == 5).all()


def test_where_experts_choose_each_token_is_on_its_own_in_evaluation():
    router = ExpertChoiceRouter(D, E, 2).double()
    torch.nn.init.normal_(router.weight)
    x = tokens(4000)
    for _ in range(100):
        router.observe(router.observation(router.train()(x)))
    routing = router.eval()(x)
    assert len(routing.tokens) == pytest.approx(2 * len(x), rel=0.01)
    alone = router(x[7:8])
    assert alone.experts[:, 0].tolist() == routing.experts[routing.tokens == 7, 0].tolist()


def test_the_bias_moves_by_the_sign_of_what_is_missing():
    router = BiasBalancedRouter(D, 4, 1, bias_update_speed=0.01)
    router.initialise()
    for load in ([5.0, 1.0, 2.0, 0.0], [3.0, 1.0, 2.0, 2.0]):  # two batches of one step: 8, 2, 4, 2 of mean 4
        router.observe(torch.tensor(load))
    assert router.e_score_correction_bias.tolist() == [0.0] * 4
    router.update_bias()
    assert_close(router.e_score_correction_bias, torch.tensor([-0.01, 0.01, 0.0, 0.01]))
    router.update_bias()  # nothing seen since
    assert_close(router.e_score_correction_bias, torch.tensor([-0.01, 0.01, 0.0, 0.01]))
    router.weight.requires_grad_(False)
    router.observe(torch.tensor([8.0, 0.0, 0.0, 0.0]))
    router.update_bias()
    assert_close(router.e_score_correction_bias, torch.tensor([-0.01, 0.01, 0.0, 0.01]))
    assert "pending_load" not in router.state_dict()


def test_the_bias_alone_makes_the_load_equal():
    torch.manual_seed(0)
    router = BiasBalancedRouter(D, E, 2, norm_topk_prob=True, bias_update_speed=0.01)
    torch.nn.init.normal_(router.weight)
    router.initialise()
    x = torch.randn(512, D) + torch.randn(D)
    before = router.train()(x).load
    for _ in range(300):
        router.observe(router(x).load)
        router.update_bias()
    after = router(x).load
    assert before.max() > 2 * before.mean()
    assert after.max() < 1.15 * after.mean() and after.min() > 0.85 * after.mean()
