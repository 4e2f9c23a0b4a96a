"""BEATs: a transformer over patches of a spectrogram, with its acoustic tokenizers."""
