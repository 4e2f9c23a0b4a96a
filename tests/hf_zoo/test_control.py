"""Control: what the controllers reach, what is recorded, and that a player acts as the model would without a cache."""

import sys

import numpy as np
import pytest
import torch

import hf_zoo
from hf_zoo.control import EXPERTS, Player, collect, evaluate, make_environment
from hf_zoo.control.experts import perform
from hf_zoo.tokenization.gato_processor import join

LEAST = {"CartPole-v1": 490, "MountainCar-v0": -135, "Pendulum-v1": -300}


@pytest.fixture(scope="module")
def processor():
    return hf_zoo.create_processor("gato-tiny")


def built(seed=0):
    torch.manual_seed(seed)
    model = hf_zoo.create_model("gato-tiny").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.parametrize("name", EXPERTS)
def test_controllers_do_their_work(name):
    episodes, returns = collect(name, 5, seed=3)
    assert np.mean(returns) > LEAST[name]
    for steps in episodes:
        assert all(np.all(np.abs(action) <= 1) for _, action in steps) or name == "MountainCar-v0"
    again, _ = collect(name, 5, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(episodes[2][5], again[2][5], strict=True))


def test_noise_is_performed_and_not_recorded():
    quiet, _ = collect("CartPole-v1", 1, seed=0)
    noisy, _ = collect("CartPole-v1", 1, seed=0, noise=0.5)
    assert np.array_equal(quiet[0][0][0], noisy[0][0][0])
    assert not np.array_equal(quiet[0][10][0], noisy[0][10][0])
    assert all(action == EXPERTS["CartPole-v1"](seen) for seen, action in noisy[0])


def test_actions_in_the_units_of_the_environment():
    environment = make_environment("Pendulum-v1")
    environment.reset(seed=0)
    seen, *_ = perform(environment, np.array([0.5]))
    environment.reset(seed=0)
    expected, *_ = environment.step(np.array([1.0], dtype=np.float32))  # half of the largest torque, 2
    assert np.allclose(seen, expected)


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
@torch.no_grad()
def test_a_player_acts_as_the_whole_sequence_says(name, processor):
    """Also once its window is full, which then begins later."""
    model, environment = built(), make_environment(name)
    player = Player(model, processor, environment, max_tokens=40)
    random = np.random.default_rng(0)
    size, num_restarts, steps = environment.observation_space.shape, 0, []
    for _ in range(15):
        seen = random.normal(size=size)
        before = player._num_read()
        action = player.act(seen)
        num_restarts += player._num_read() < before
        assert player._num_read() + 1 <= 40
        open_step = processor.timestep(seen)
        num_in_cache = player._num_read() // (len(open_step["input_ids"]) + 1)  # whole timesteps before this one
        piece = join(*steps[len(steps) - num_in_cache :], open_step)
        assert len(piece["input_ids"]) == player._num_read()
        batch = processor.batch([piece])
        logits = model(**{n: batch[n] for n in ("input_ids", "local_positions")}).logits[0, -1]
        token = player.allowed[int(logits[player.allowed.start : player.allowed.stop].argmax())]
        assert np.squeeze(action) == processor.decode_values([token], is_action=True)[0]
        steps.append(join(open_step, processor.action(action)))
    assert num_restarts >= 2


def test_a_prompt_stands_before_the_episode(processor):
    model, environment = built(), make_environment("CartPole-v1")
    demonstration = collect("CartPole-v1", 1, seed=0)[0][0][:4]
    player = Player(model, processor, environment, prompt=demonstration)
    player.act(np.zeros(4))
    assert player._num_read() == 4 * 6 + 5
    player.act(np.zeros(4))
    assert player._num_read() == 4 * 6 + 5 + 6
    player.reset()
    player.act(np.zeros(4))
    assert player._num_read() == 4 * 6 + 5


def test_returns_are_the_same_again(processor):
    returns = evaluate(built(), processor, "CartPole-v1", 2, seed=5, max_tokens=36)
    assert len(returns) == 2 and all(1 <= value <= 500 for value in returns)
    assert returns == evaluate(built(), processor, "CartPole-v1", 2, seed=5, max_tokens=36)


def test_what_cannot_be_played_is_said(processor, monkeypatch):
    with pytest.raises(ValueError, match="CartPole-v0.*Did you mean 'CartPole-v1'"):
        collect("CartPole-v0", 1, seed=0)
    player = Player(built(), processor, make_environment("CartPole-v1"), max_tokens=5)
    with pytest.raises(ValueError, match="a timestep has 6 tokens, more than max_tokens=5"):
        player.act(np.zeros(4))
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ImportError, match=r"hf_zoo\[control\]"):
        make_environment("CartPole-v1")
