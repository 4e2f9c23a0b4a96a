"""T5 as `zoo_fid`: the same weights, which then read passages."""

from .seq2seq import UPSTREAM

__all__ = ["UPSTREAM"]
