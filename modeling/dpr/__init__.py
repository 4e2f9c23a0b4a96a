"""The dense passage retriever."""
