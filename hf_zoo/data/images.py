"""What feeds models of images: transformers' own processors, of PIL and numpy alone, with the sizes of a preset."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedTokenizerBase, ProcessorMixin


def build_image_processor(kind: str, image_size: int) -> "BaseImageProcessor":
    """A processor that gives square images of a size.

    Args:
        kind: "vit" squeezes an image into the square and has colours from -1 to 1; "clip" crops its middle and has
            colours of mean 0 and deviation 1 over the images that CLIP was trained on.
        image_size: side of the square.
    """
    if kind == "clip":
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        size = {"height": image_size, "width": image_size}
        return CLIPImageProcessorPil(size={"shortest_edge": image_size}, crop_size=size)
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    return ViTImageProcessorPil(size={"height": image_size, "width": image_size})


def build_pair_processor(
    image_processor: "BaseImageProcessor", tokenizer: "PreTrainedTokenizerBase"
) -> "ProcessorMixin":
    """A processor of images and texts; texts end with the end token, where a tower of texts is read, and pads follow.

    Args:
        image_processor: of the images.
        tokenizer: of the texts, changed in place.
    """
    from tokenizers.processors import TemplateProcessing
    from transformers import CLIPProcessor

    end = tokenizer.eos_token
    template = TemplateProcessing(single=f"$A {end}", special_tokens=[(end, tokenizer.eos_token_id)])
    tokenizer.backend_tokenizer.post_processor = template
    tokenizer.padding_side = "right"
    return CLIPProcessor(image_processor=image_processor, tokenizer=tokenizer)
