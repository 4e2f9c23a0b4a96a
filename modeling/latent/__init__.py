"""Multihead Latent Transformer: heads with latent spaces of their own."""
