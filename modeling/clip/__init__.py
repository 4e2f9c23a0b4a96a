"""Images and texts in one space: CLIP, SigLIP's loss."""
