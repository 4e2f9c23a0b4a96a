"""Segment Anything: an image encoder, a prompt encoder, and a decoder of masks."""
