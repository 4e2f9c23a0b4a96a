"""Model code: what travels to the Hub with the weights. Imports torch, transformers and its own siblings only."""

if __name__ != "hf_zoo.modeling":
    # Under a second name every class would exist twice, and isinstance and the Auto mappings would miss.
    raise ImportError(f"write `import hf_zoo.modeling`, not `import {__name__}`")
