"""Tokenizers, feature extractors and processors: these travel to the Hub too. Imports no model and no hf_zoo."""

if __name__ != "hf_zoo.tokenization":
    # Under a second name every class would exist twice, and isinstance and the Auto mappings would miss.
    raise ImportError(f"write `import hf_zoo.tokenization`, not `import {__name__}`")
