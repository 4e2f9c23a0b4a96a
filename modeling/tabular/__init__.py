"""Transformers over the columns of a table: FT-Transformer and TabTransformer."""
