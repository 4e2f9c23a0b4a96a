"""C-Former: speech in as many tokens as it has words, by continuous integrate-and-fire; the ear of X-LLM."""
