"""Simple controllers of gymnasium's classic control, and the episodes that they play."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MissingExtra, unknown_name

if TYPE_CHECKING:
    import gymnasium

Timestep = tuple[np.ndarray, int | np.ndarray]


def balance_pole(observation: np.ndarray) -> int:
    """CartPole: push to the side on which a weighted sum of place, speed, angle and turning is."""
    return int(observation @ np.array([0.1, 0.35, 2.0, 0.7]) > 0)


def rock_car(observation: np.ndarray) -> int:
    """MountainCar: push in the direction of travel, so that every swing gains height."""
    return 2 if observation[1] >= 0 else 0


def swing_up(observation: np.ndarray) -> np.ndarray:
    """Pendulum: pump energy until it is upright, then hold it; the torque as a share of the largest."""
    cosine, sine, turning = observation
    if cosine > 0.85:
        torque = -8.0 * np.arctan2(sine, cosine) - 1.5 * turning
    else:
        missing = 10.0 * (1 - cosine) - turning**2 / 3  # of the energy that it has when upright and at rest
        torque = 2.0 * np.sign(missing) * (np.sign(turning) or 1.0)
    return np.array([np.clip(torque / 2.0, -1.0, 1.0)], dtype=np.float32)


EXPERTS = {"CartPole-v1": balance_pole, "MountainCar-v0": rock_car, "Pendulum-v1": swing_up}


def make_environment(name: str, **options: Any) -> "gymnasium.Env":
    """An environment of gymnasium.

    Raises:
        MissingExtra: gymnasium is not installed.
    """
    try:
        import gymnasium
    except ImportError:
        raise MissingExtra("gymnasium", "control") from None
    return gymnasium.make(name, **options)


def perform(environment: "gymnasium.Env", action: int | np.ndarray) -> tuple[np.ndarray, float, bool]:
    """Next observation, reward, and whether the episode is over; continuous actions are given in [-1, 1]."""
    space = environment.action_space
    if hasattr(space, "low"):
        action = (space.low + (action + 1) / 2 * (space.high - space.low)).astype(space.dtype)
    observation, reward, is_over, is_cut, _ = environment.step(action)
    return observation, float(reward), is_over or is_cut


def collect(name: str, num_episodes: int, seed: int, noise: float = 0.0) -> tuple[list[list[Timestep]], list[float]]:
    """Episodes of a controller, as `ZooGatoProcessor.episode` takes them, and the return of each.

    Args:
        name: one of `EXPERTS`.
        num_episodes: how many.
        seed: of the starts and of the noise.
        noise: how often a random action is performed; what is recorded is the controller's, so that a model learns
            what to do where it would not have gone by itself.

    Raises:
        ValueError: there is no controller for it; the nearest is named.
    """
    if name not in EXPERTS:
        raise unknown_name("environment with a controller", name, EXPERTS)
    environment, random = make_environment(name), np.random.default_rng(seed)
    environment.action_space.seed(seed)
    episodes, returns = [], []
    for episode in range(num_episodes):
        observation, _ = environment.reset(seed=seed * 100_003 + episode)
        steps, total, is_over = [], 0.0, False
        while not is_over:
            action = EXPERTS[name](observation)
            steps.append((observation, action))
            if random.random() < noise:
                is_discrete = isinstance(action, int)
                action = int(environment.action_space.sample()) if is_discrete else random.uniform(-1, 1, action.shape)
            observation, reward, is_over = perform(environment, action)
            total += reward
        episodes.append(steps)
        returns.append(total)
    return episodes, returns
