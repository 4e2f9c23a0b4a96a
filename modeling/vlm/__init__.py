"""Vision-language models: images and texts that meet early, late, at every few layers, or only in the loss."""
