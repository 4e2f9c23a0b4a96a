"""Mamba-2: state-space duality."""
