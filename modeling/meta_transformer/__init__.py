"""Meta-Transformer: twelve modalities, each with its own tokens, through one frozen encoder."""
