"""Fusion-in-Decoder: an encoder-decoder that reads many passages apart and answers from all of them."""
