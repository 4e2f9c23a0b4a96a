"""The vision transformer: ViT, the towers of CLIP, SigLIP, EVA-CLIP and EVA2-CLIP, ViT-22B."""
