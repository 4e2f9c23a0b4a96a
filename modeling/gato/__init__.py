"""Gato: one decoder for text, images, observations and actions."""
