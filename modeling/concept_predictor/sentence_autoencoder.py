"""Sentences to vectors and back, by any encoder and any causal language model.

    x = pool(Encoder(tokens)),   p(tokens | x) = Decoder(W x, tokens)      one vector stands before the tokens

Shapes: B batch, N sentences, T tokens, S size of a sentence's vector, M sentences of a batch together.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..layers.pooler import pool
from ..parts import part_model
from .configuration_concept_predictor import ZooConceptPredictorConfig


class SentenceAutoencoder(nn.Module):
    """Has an encoder, a decoder, both or neither, as the config says."""

    def __init__(self, config: ZooConceptPredictorConfig) -> None:
        super().__init__()
        self.pooling = config.encoder_pooling
        self.encoder = self.decoder = None
        if config.encoder_config is not None:
            self.encoder = part_model(config.encoder_config, add_pooling_layer=False)
        if config.decoder_config is not None:
            self.decoder = part_model(config.decoder_config, "AutoModelForCausalLM")
            self.expand = nn.Linear(config.sentence_size, config.decoder_config.get_text_config().hidden_size)

    def encode(self, input_ids: Tensor, token_mask: Tensor | None = None) -> Tensor:
        """Sentences (B, N, T) -> vectors (B, N, S); sentences without a real token get zeros.

        Raises:
            ValueError: there is no encoder, or input_ids are not sentences.
        """
        if self.encoder is None:
            raise ValueError("input_ids are given to a model without an encoder: set encoder_config in its config")
        if input_ids.ndim != 3:
            raise ValueError(f"input_ids must be (rows, sentences, tokens), got {tuple(input_ids.shape)}")
        mask = torch.ones_like(input_ids) if token_mask is None else token_mask
        is_real = mask.flatten(0, 1).any(-1)
        ids, mask = input_ids.flatten(0, 1)[is_real], mask.flatten(0, 1)[is_real]
        hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        made = pool(hidden, mask, self.pooling)
        vectors = made.new_zeros(len(is_real), made.shape[-1])
        vectors[is_real] = made
        return vectors.unflatten(0, input_ids.shape[:2])

    def decoding_loss(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of the tokens of sentences; labels (M, T), -100 where nothing is to be learnt."""
        prefix = self._prefix(vectors)
        tokens = self.decoder.get_input_embeddings()(labels.clamp_min(0))
        logits = self.decoder(inputs_embeds=torch.cat((prefix, tokens[:, :-1]), dim=1), use_cache=False).logits
        return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())

    @torch.no_grad()
    def decode(self, vectors: Tensor, **options: Any) -> Tensor:
        """Vectors (M, S) in tokens (M, T), by the decoder's `generate` and its options."""
        return self.decoder.generate(inputs_embeds=self._prefix(vectors), **options)

    def _prefix(self, vectors: Tensor) -> Tensor:
        if self.decoder is None:
            raise ValueError("there is no decoder to say concepts in words: set decoder_config in the config")
        return self.expand(vectors.to(self.expand.weight.dtype))[:, None]
