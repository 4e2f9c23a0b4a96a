"""Sparse Transformer: factorised attention over long texts."""
