"""Folders of transformers' own models, opened as zoo models and written back.

`ZooLlmForCausalLM.from_pretrained("<a Llama folder>")` gives the logits of `LlamaForCausalLM`. What differs between
the two, names of config fields and names and layout of weights, stands in one table an architecture
(`upstream/llm.py`, ...); transformers' own loading works from them, so device maps, sharding and quantisation do as
ever.
"""

from .convert import convert_folder, to_upstream
from .reading import install

__all__ = ["convert_folder", "install", "to_upstream"]
