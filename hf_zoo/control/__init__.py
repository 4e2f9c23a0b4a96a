"""Gymnasium's classic control for models that act: episodes of simple controllers, playing, returns."""

from .experts import EXPERTS, collect, make_environment
from .player import Player, evaluate

__all__ = ["EXPERTS", "Player", "collect", "evaluate", "make_environment"]
