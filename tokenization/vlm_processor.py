"""What feeds `zoo_vlm`: images and texts with placeholders, or conversations of both.

A text has one `<image>` for each of its images, and the processor writes as many placeholders as the model wants.
"""

from typing import Any

from transformers import (
    BaseImageProcessor,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

# Vicuna's form, which LLaVA speaks: "USER: <image>\nWhat is it? ASSISTANT: A glyph."
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'] | upper }}: "
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %} {% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


class ZooVlmProcessor(ProcessorMixin):
    """An image processor and a tokenizer.

    Args:
        image_processor: of the images, which all come out in one size.
        tokenizer: of the texts; it knows the placeholder.
        num_image_tokens: how many placeholders an image has in a text; 0 where images are given beside it.
        image_token: the placeholder.
        chat_template: how a conversation becomes a text; Vicuna's without it.
    """

    attributes = ["image_processor", "tokenizer"]
    image_processor_class = "AutoImageProcessor"
    tokenizer_class = "AutoTokenizer"
    _auto_class = "AutoProcessor"  # this file is saved beside the settings

    def __init__(
        self,
        image_processor: BaseImageProcessor | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        num_image_tokens: int = 1,
        image_token: str = "<image>",
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.num_image_tokens = num_image_tokens
        self.image_token = image_token if num_image_tokens else None
        self.image_token_id = tokenizer.convert_tokens_to_ids(image_token) if num_image_tokens else None
        super().__init__(image_processor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE, **kwargs)

    @classmethod
    def from_model_config(cls, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> "ZooVlmProcessor":
        """For a model.

        Args:
            config: of the model.
            tokenizer: of at most `config.image_token_id` ids, and changed in place: ids up to there are filled with
                tokens that nothing says, then the placeholder follows; prompts are padded on the left.
        """
        if config.placeholders:
            spare = range(len(tokenizer), config.image_token_id)
            tokenizer.add_tokens([f"<spare_{number}>" for number in spare], special_tokens=True)
            tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
        tokenizer.padding_side = "left" if config.placeholders else "right"
        side = config.vision_config.image_size
        size = {"height": side, "width": side}
        image_processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=size)
        return cls(image_processor, tokenizer, config.placeholders)

    @property
    def model_input_names(self) -> list[str]:
        """What the model takes."""
        return ["input_ids", "attention_mask", "pixel_values"]

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """What stands in a text for one of its images."""
        return self.image_token * self.num_image_tokens
