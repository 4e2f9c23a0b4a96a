"""Next-concept prediction: a language model whose tokens are vectors of sentences."""
