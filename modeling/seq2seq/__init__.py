"""The encoder-decoder: the transformer of 2017, T5, T5 1.1, CodeT5."""
