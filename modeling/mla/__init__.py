"""Decoder with multi-head latent attention: DeepSeek-V2 and V3."""
