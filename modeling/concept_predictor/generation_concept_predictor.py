"""Generation of concepts, one after the other, until a text ends or repeats itself.

Shapes: B batch, N concepts, S size of a sentence's vector, M new concepts, T tokens of a sentence.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.utils import ModelOutput

from .concept_heads import Context, Sampling


@dataclass
class ConceptGenerationOutput(ModelOutput):
    """What was generated.

    Args:
        concepts: (B, M, S), in the encoder's space; zeros after the end of a row.
        lengths: (B), how many of them are real; the end of a text is none.
        sequences: (B, M, T), their words, from a model with a decoder.
    """

    concepts: Tensor | None = None
    lengths: Tensor | None = None
    sequences: Tensor | None = None


class GeneratesConcepts:
    """Mixin of the model that predicts concepts."""

    @torch.no_grad()
    def generate(
        self,
        concepts: Tensor | None = None,
        attention_mask: Tensor | None = None,
        max_new_concepts: int = 16,
        input_ids: Tensor | None = None,
        token_mask: Tensor | None = None,
        condition: Tensor | None = None,
        decode: dict[str, Any] | None = None,
        **options: Any,
    ) -> ConceptGenerationOutput:
        """Go on with texts.

        A row ends before a concept like the end of a text (`model.space.set_end`), or like the one before it.

        Args:
            concepts, attention_mask: (B, N, S) and (B, N), padded on either side.
            max_new_concepts: M at most.
            input_ids, token_mask: (B, N, T), sentences instead of concepts.
            condition: (B, N, D), see `ZooConceptPredictorModel.forward`; of the concepts that are given.
            decode: options of the decoder's `generate`, which says the concepts in words; by default 32 tokens a
                sentence where there is a decoder.
            options: fields of `Sampling`, in place of the config's.

        Raises:
            ValueError: both or neither of concepts and input_ids, no room for a concept, or code books that nobody
                has fitted.
        """
        if max_new_concepts < 1:
            raise ValueError(f"max_new_concepts must be at least 1, got {max_new_concepts}")
        sampling = self._sampling(options)
        concepts, real = self.concepts_of(concepts, input_ids, token_mask)
        concepts = self.model.check(concepts)
        if attention_mask is not None:
            real = attention_mask.bool()
        elif real is None:
            real = torch.ones(concepts.shape[:2], dtype=torch.bool, device=concepts.device)
        order = real.long().argsort(dim=1, stable=True)  # padding, wherever it was, stands before the concepts
        real = real.gather(1, order)
        concepts, condition = (
            None if x is None else x.gather(1, order[..., None].expand_as(x)) for x in (concepts, condition)
        )

        outputs = self.model(concepts=concepts, attention_mask=real.long(), condition=condition, use_cache=True)
        context = Context(outputs.last_hidden_state, real, outputs.past_key_values)
        before = concepts[:, -1]
        is_going_on = torch.ones(len(concepts), dtype=torch.bool, device=concepts.device)
        made: list[Tensor] = []
        lengths = torch.zeros(len(concepts), dtype=torch.long, device=concepts.device)
        for number in range(max_new_concepts):
            new = self.model.space.denormalise(self.head.sample(self.model, context, sampling))
            least = self.config.stop_similarity
            is_over = self.model.space.is_end(new, least) | (F.cosine_similarity(new, before, dim=-1) >= least)
            is_going_on &= ~is_over
            if not bool(is_going_on.any()):
                break
            made.append(new * is_going_on[:, None])
            lengths += is_going_on
            if number + 1 < max_new_concepts:
                context.real = F.pad(context.real, (0, 1), value=True)
                outputs = self.model(
                    concepts=new[:, None],
                    attention_mask=context.real.long(),
                    past_key_values=context.cache,
                    use_cache=True,
                )
                context.hidden = torch.cat((context.hidden, outputs.last_hidden_state), dim=1)
                before = new
        found = torch.stack(made, 1) if made else concepts[:, :0]
        sequences = None
        if self.sentences.decoder is not None and made:
            words = self.sentences.decode(found.flatten(0, 1), **(decode or {"max_new_tokens": 32}))
            sequences = words.unflatten(0, found.shape[:2])
        return ConceptGenerationOutput(concepts=found, lengths=lengths, sequences=sequences)

    def _sampling(self, options: dict[str, Any]) -> Sampling:
        names = ("num_sampling_steps", "guidance_scale", "guidance_rescale", "initial_noise", "noise_scaling")
        known = {name: getattr(self.config, name) for name in names}
        if unknown := set(options) - set(Sampling.__dataclass_fields__):
            raise ValueError(
                f"generate knows no option {min(unknown)!r}; there are {', '.join(Sampling.__dataclass_fields__)}"
            )
        return Sampling(**{**known, **options})
