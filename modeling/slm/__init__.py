"""Small language models: linear and local attention, low-rank and shared weights, separable convolutions, ALBERT."""
