"""Decoder with routed experts."""
