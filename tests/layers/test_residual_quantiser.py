"""Residual quantisation: codes against a plain search, errors that fall with code books, no idle codes."""

import pytest
import torch
from torch.testing import assert_close

from hf_zoo.modeling.layers.residual_quantiser import ResidualQuantiser


def fitted(books=4, codes=8, size=6, count=300, seed=0):
    vectors = torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    quantiser = ResidualQuantiser(books, codes, size).double()
    assert not quantiser.is_fitted
    quantiser.fit(vectors)
    return quantiser, vectors


def test_codes_are_the_nearest_of_what_is_left():
    quantiser, vectors = fitted()
    codes = quantiser.encode(vectors[:20].view(4, 5, 6))
    for i, vector in enumerate(vectors[:20]):
        rest = vector.clone()
        for k, book in enumerate(quantiser.codebooks):
            code = min(range(8), key=lambda c: float((rest - book[c]).square().sum()))
            assert codes[i // 5, i % 5, k] == code
            rest = rest - book[code]
        assert_close(quantiser.decode(codes[i // 5, i % 5]), vector - rest)
    assert_close(quantiser.centroids(codes).sum(-2), quantiser.decode(codes))


def test_each_code_book_lowers_the_error():
    quantiser, vectors = fitted()
    codes = quantiser.encode(vectors)
    errors = [(vectors - quantiser.decode(codes[:, :k])).square().mean().item() for k in range(1, 5)]
    assert all(later < 0.85 * earlier for earlier, later in zip(errors, errors[1:], strict=False))


def test_fitting_is_reproducible_uses_all_codes_and_wants_enough_vectors():
    quantiser, vectors = fitted()
    again, _ = fitted()
    assert_close(quantiser.codebooks, again.codebooks, rtol=0, atol=0)
    assert len(quantiser.encode(vectors)[:, 0].unique()) == 8
    with pytest.raises(ValueError, match="codebook_size=8 .* got 7"):
        quantiser.fit(vectors[:7])


def test_a_code_that_nobody_needs_is_tried_elsewhere():
    """Most vectors are alike, so that most code books' first codes are too."""
    vectors = torch.full((60, 6), 9.0, dtype=torch.float64)
    vectors[50:] += torch.randn(10, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    quantiser = ResidualQuantiser(1, 8, 6).double()
    quantiser.fit(vectors)
    assert (quantiser.codebooks - 9).abs().max() < 5  # none was left at zero
