"""The processor of vision-language models: places of images, conversations, saving and loading."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tiny import needs_image_processors

import hf_zoo
from hf_zoo.tokenization.vlm_processor import ZooVlmProcessor


def picture(number, size=(40, 60)):
    return Image.fromarray(np.random.default_rng(number).integers(0, 255, (*size, 3), dtype=np.uint8))


@pytest.fixture
def processor():
    return hf_zoo.create_processor("vlm-tiny")


def test_each_image_has_its_places(processor):
    config = hf_zoo.create_config("vlm-tiny")
    assert processor.tokenizer.convert_tokens_to_ids("<image>") == processor.image_token_id == config.image_token_id
    assert len(processor.tokenizer) == config.image_token_id + 1 <= config.vocab_size
    texts = ["no picture", "<image> one", "a <image> and <image>"]
    images = [[], [picture(0)], [picture(1, (20, 90)), picture(2, (90, 20))]]
    batch = processor(images=images, text=texts, padding=True, return_tensors="pt")
    assert (batch["input_ids"] == config.image_token_id).sum(-1).tolist() == [0, 16, 32]
    assert batch["pixel_values"].shape == (3, 3, 32, 32)
    assert batch["attention_mask"][0, 0] == 0 and batch["attention_mask"][:, -1].all()  # padding on the left
    single = processor(images=[picture(2, (90, 20))], text="<image>", return_tensors="pt")
    assert torch.equal(batch["pixel_values"][2:], single["pixel_values"])
    model = hf_zoo.create_model("vlm-tiny").eval()
    assert model.generate(**batch, max_new_tokens=3).shape == (3, batch["input_ids"].shape[1] + 3)


def test_texts_and_images_that_do_not_fit_are_refused(processor):
    needs_image_processors()
    with pytest.raises(ValueError, match="(?i)image"):
        processor(images=[picture(0)], text=["<image> <image>"])
    with pytest.raises(ValueError, match="(?i)image"):
        processor(text=["<image>"])
    assert "pixel_values" not in processor(text=["no picture"], return_tensors="pt")


def test_a_conversation_is_vicunas(processor):
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "image", "image": picture(0)}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A glyph."}]},
        {"role": "user", "content": "Sure?"},
    ]
    end = processor.tokenizer.eos_token
    text = processor.apply_chat_template(turns, add_generation_prompt=True)
    assert text == f"USER: <image>\nWhat? ASSISTANT: A glyph.{end}USER: Sure? ASSISTANT:"
    batch = processor.apply_chat_template(
        turns, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    assert (batch["input_ids"] == processor.image_token_id).sum() == 16
    assert batch["pixel_values"].shape == (1, 3, 32, 32)


def test_it_survives_saving(processor, tmp_path):
    needs_image_processors()
    hf_zoo.create_model("vlm-tiny").save_pretrained(tmp_path)
    processor.chat_template = processor.chat_template.replace("USER", "YOU")
    processor.save_pretrained(tmp_path)
    again = transformers.AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is ZooVlmProcessor
    assert (again.num_image_tokens, again.image_token_id) == (16, 480)
    assert again.chat_template == processor.chat_template
    inputs = {"images": [[picture(3)]], "text": ["<image> what"], "return_tensors": "pt"}
    for name, value in processor(**inputs).items():
        assert torch.equal(value, again(**inputs)[name])
    say = transformers.pipeline("image-text-to-text", model=str(tmp_path))
    assert say(images=picture(1), text="<image> what", max_new_tokens=2)[0]["generated_text"]


@pytest.mark.parametrize("fusion, places", [("early", 16), ("interleaved", 1), ("joint", 0)])
def test_places_are_as_many_as_the_fusion_wants(fusion, places, processor):
    config = hf_zoo.create_config("vlm-tiny", fusion=fusion, cross_attention_every=1)
    made = ZooVlmProcessor.from_model_config(config, processor.tokenizer)
    text = "what" if fusion == "joint" else "<image>what"
    batch = made(images=[picture(0)], text=[text], return_tensors="pt")
    assert (batch["input_ids"] == 480).sum() == places
    assert batch["pixel_values"].shape == (1, 3, 32, 32)


@pytest.mark.slow
def test_it_loads_without_the_package(processor, tmp_path):
    hf_zoo.create_model("vlm-tiny").save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    script = (
        "import json, sys, transformers\n"
        "sys.modules['hf_zoo'] = None\n"
        "p = transformers.AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        "print(json.dumps([type(p).__name__, p.num_image_tokens, p.image_token_id]))\n"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}
    run = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert json.loads(run.stdout.splitlines()[-1]) == ["ZooVlmProcessor", 16, 480]
