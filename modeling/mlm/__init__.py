"""The masked language model: BERT and BioBERT."""
