"""Learning from searches: rows say what was found and what came of it, and a policy that learns them needs none."""

import pytest
import torch
from torch.testing import assert_close
from transformers import Trainer, TrainingArguments

import hf_zoo
from hf_zoo.modeling.lam.search import SearchOptions
from hf_zoo.training.searched import SearchedCollator, searched_decisions, searched_episodes

LENGTH = 7


class Line:
    """A treasure at one end of a line, which is seen; acts are to the left and to the right."""

    def __init__(self, place, treasure):
        self.place, self.treasure = place, treasure

    def clone(self):
        return Line(self.place, self.treasure)

    def step(self, act):
        self.place = min(max(self.place + (1 if act else -1), 0), LENGTH - 1)
        found = self.place == self.treasure
        return float(found), found


def show(game):
    return [8 + game.place, *(first + game.treasure for first in range(20, 60, 10))]


def collate(rows):
    ids = torch.tensor(rows)
    tools = torch.tensor([[[73, 74, 75], [70, 71, 72]]]).expand(len(ids), -1, -1)
    act = torch.full((len(ids),), ids.shape[1] - 1)
    return {"input_ids": ids, "act_positions": act, "tool_ids": tools, "tool_mask": torch.ones_like(tools)}


def games():
    return [Line(place, treasure) for treasure in (0, LENGTH - 1) for place in range(1, LENGTH - 1)]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return hf_zoo.create_model("lam-tiny")


@torch.no_grad()
def solved_without_search(model):
    going, done = games(), 0
    for _ in range(LENGTH):
        acts = model(**collate([show(game) for game in going])).tool_logits[:, :-1].argmax(-1).tolist()
        ended = [game.step(act)[1] for game, act in zip(going, acts, strict=True)]
        done += sum(ended)
        going = [game for game, end in zip(going, ended, strict=True) if not end]
        if not going:
            break
    return done


def test_rows_say_what_came_of_an_episode(model):
    options = SearchOptions(simulations=60, discount=0.5, temperature=0.0)
    start = Line(LENGTH - 3, LENGTH - 1)
    rows = searched_episodes(model, [start], show, collate, options, unroll=3)
    assert start.place == LENGTH - 3  # what was given is left as it is
    assert [row["search_acts"] for row in rows] == [[1, 1, 0], [1, 0, 0]]
    assert [row["search_rewards"] for row in rows] == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    assert [row["search_done"] for row in rows] == [[0.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    assert [row["search_values"] for row in rows] == [[0.5, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
    for row, searched in zip(rows, (2, 1), strict=True):
        assert_close([sum(shares) for shares in row["search_visits"]], [1.0] * searched + [0.0] * (4 - searched))
    assert rows[1]["shown"] == show(Line(LENGTH - 2, LENGTH - 1))
    batch = SearchedCollator(collate)(rows)
    assert batch["search_visits"].shape == (2, 4, 2 + 3) and not batch["search_visits"][..., 2:].any()
    assert batch["search_acts"].tolist() == [[1, 1, 0], [1, 0, 0]]


def test_an_episode_that_is_given_up_teaches_what_was_seen(model):
    class Endless(Line):
        def clone(self):
            return Endless(self.place, self.treasure)

        def step(self, act):
            super().step(act)
            return 0.25, False

    options = SearchOptions(simulations=4, discount=0.5)
    rows = searched_episodes(
        model, [Endless(2, 0)], show, collate, options, max_steps=5, unroll=3, generator=torch.Generator()
    )
    assert len(rows) == 2  # of the other steps less is known than is unrolled
    for row in rows:
        assert row["search_rewards"] == [0.25] * 3 and row["search_done"] == [0.0] * 3
        for now, after in zip(row["search_values"], row["search_values"][1:], strict=False):
            assert_close(now, 0.25 + 0.5 * after)
    assert rows[-1]["search_values"][-1] > 0.1  # the rewards that a search expects of the rest


def test_the_same_seed_plays_alike(model):
    options = SearchOptions(simulations=8, noise=0.25)

    def played(seed):
        generator = torch.Generator().manual_seed(seed)
        return searched_episodes(model, games(), show, collate, options, 6, generator=generator)

    assert played(1) == played(1) != played(2)


def test_the_heads_loss_is_its_equation(model):
    rows = searched_episodes(model, games()[:2], show, collate, SearchOptions(simulations=8, temperature=0.0), 4)
    batch = SearchedCollator(collate)(rows or searched_decisions(model, [show(game) for game in games()], collate))
    outputs = model(**batch)
    kinds = outputs.kind_logits.softmax(-1)
    pi = torch.cat((kinds[:, :1] * outputs.tool_logits[:, :-1].softmax(-1), kinds[:, 1:]), dim=-1)
    missed = -(batch["search_visits"][:, 0] * pi.log()).sum(-1)
    expected = missed + (outputs.value - batch["search_values"][:, 0]) ** 2 / 4
    assert_close(outputs.losses["distilled"], expected.mean())
    assert_close(outputs.loss, outputs.losses["distilled"] + outputs.losses["search"])


def test_a_policy_that_learnt_from_searches_needs_none(model, tmp_path):
    before = solved_without_search(model)
    options = SearchOptions(simulations=100, discount=0.8)
    rows = searched_episodes(model, games(), show, collate, options, generator=torch.Generator().manual_seed(0))
    arguments = TrainingArguments(
        tmp_path,
        max_steps=120,
        learning_rate=3e-3,
        per_device_train_batch_size=16,
        remove_unused_columns=False,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
    )
    Trainer(model, arguments, data_collator=SearchedCollator(collate), train_dataset=rows).train()
    model.eval()
    after = solved_without_search(model)
    assert before <= 6 and after >= 9, (before, after)  # of ten


def test_decisions_are_searched_in_the_world_model(model):
    shown = [show(game) for game in games()]
    rows = searched_decisions(model, shown, collate, simulations=12)
    batch = SearchedCollator(collate)(rows)
    assert batch["search_visits"].shape == (len(shown), 1, 5) and batch["search_acts"].shape == (len(shown), 0)
    assert_close(batch["search_visits"].sum(-1), torch.ones(len(shown), 1))
    before = model(**batch).losses
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(20):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    after = model(**batch).losses
    assert after["distilled"] < before["distilled"] and after["search"] < before["search"]
