"""A latent that all heads share takes the place of their keys and values, and the loss does not suffer.

DeepSeek-AI 2024 (V2), section 2.1.4: with a latent of 4 head sizes and a rotary key of half of one, the cache keeps
4.5 head sizes a token where multi-head attention keeps 2 for each head, and predicts as well.
"""

import torch

import hf_zoo
from hf_zoo.claims import Claim, Examples, train
from hf_zoo.data import load_dataset

HEADS, HEAD_SIZE, LENGTH, STEPS = 16, 8, 96, 500
SIZES = {
    **{"vocab_size": 256, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
    **{"num_attention_heads": HEADS, "pad_token_id": None, "initializer_range": 0.02},
}
OWN = {"num_key_value_heads": HEADS, "head_dim": HEAD_SIZE}
LATENT = {
    **{"kv_lora_rank": 4 * HEAD_SIZE, "q_lora_rank": None, "qk_nope_head_dim": HEAD_SIZE},
    **{"qk_rope_head_dim": HEAD_SIZE // 2, "v_head_dim": HEAD_SIZE, "first_k_dense_replace": 2},
}


def windows(split):
    """A drawer of stretches of Python source, byte by byte."""
    text = "\n".join(load_dataset("python-source", split)["text"]).encode()
    text = torch.frombuffer(bytearray(text), dtype=torch.uint8)

    def draw(generator):
        start = int(torch.randint(0, len(text) - LENGTH, (), generator=generator))
        ids = text[start : start + LENGTH].long()
        return {"input_ids": ids, "labels": ids}

    return draw


@torch.no_grad()
def measure(model, draw):
    """Loss on other source, and numbers a token in the cache of a layer."""
    batch = Examples(draw, 256, seed=99).batch(256)
    losses = [model(ids, labels=ids, use_cache=False).loss.item() for ids in batch["input_ids"].split(64)]
    layer = model(batch["input_ids"][:1], use_cache=True).past_key_values.layers[0]
    return sum(losses) / len(losses), (layer.keys.numel() + layer.values.numel()) / LENGTH


def main():
    claim = Claim("mla", "DeepSeek-AI 2024")
    makers = {
        "heads of their own": lambda: hf_zoo.create_model("llm-tiny", **SIZES, **OWN),
        "one latent": lambda: hf_zoo.create_model("mla-tiny", **SIZES, **LATENT),
    }
    found = {}
    for name, make in makers.items():
        torch.manual_seed(0)
        model = make()
        losses = train(model, windows("train"), steps=STEPS, learning_rate=3e-3, batch_size=16)
        claim.draw("loss on Python source, by byte", name, range(10, STEPS + 1, 10), losses)
        found[name] = measure(model, windows("validation"))
    (mha_loss, mha_size), (mla_loss, mla_size) = found.values()
    claim.compare(
        "the cache keeps 4.5 head sizes a token in place of 2 for each of 16 heads, 7.1 times less",
        mla_size == 4.5 * HEAD_SIZE and mha_size == 2 * HEADS * HEAD_SIZE,
        latent=mla_size,
        heads=mha_size,
        factor=mha_size / mla_size,
    )
    claim.compare(
        "and the loss on other source is within 2 %", mla_loss < 1.02 * mha_loss, latent=mla_loss, heads=mha_loss
    )
    claim.finish()


if __name__ == "__main__":
    main()
