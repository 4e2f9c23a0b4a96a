"""Longformer: attention to a window and to global tokens."""
