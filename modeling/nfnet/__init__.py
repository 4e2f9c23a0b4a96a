"""Residual networks without norms: NFNet."""
