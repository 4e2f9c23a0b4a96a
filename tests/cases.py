"""One case an architecture: the tiny model that the sweep builds, and what it promises beyond what all promise.

A new architecture adds a line here and no test.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from modalities import MODALITIES
from trajectories import trajectory

import hf_zoo
from hf_zoo.registry import ARCHITECTURES, Architecture


@dataclass(frozen=True)
class Case:
    """What the sweep needs to know of an architecture.

    Args:
        overrides: fields that make the tiny preset smaller still, or switch off what makes outputs random.
        modality: what the model takes: "tokens", or one of MODALITIES, for which promises about tokens mean nothing.
        is_causal: whether later tokens may not change earlier outputs.
        waived: name of a promise -> why it cannot be kept.
        no_prefix: why prefix tuning, which brings keys and values, is not defined.
        never_learn: parts of parameter names that one step on a tiny batch may leave without gradient, with why.
    """

    architecture: Architecture
    overrides: dict[str, Any] = field(default_factory=dict)
    modality: str = "tokens"
    is_causal: bool = True
    waived: dict[str, str] = field(default_factory=dict)
    no_prefix: str | None = None
    never_learn: dict[str, str] = field(default_factory=dict)

    def config(self, **overrides: Any) -> Any:
        """The tiny configuration."""
        return hf_zoo.create_config(self.architecture.tiny_preset, **{**self.overrides, **overrides})

    def build(self, task: str | None = None, **overrides: Any) -> torch.nn.Module:
        """A tiny model in evaluation mode with weights far from their initial values.

        Fresh weights hide mistakes: biases are zero, gains one, outputs nearly constant.
        """
        torch.manual_seed(0)
        model = self.architecture.model_class(task)(self.config(**overrides))
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
        return model.eval()

    def inputs(self, rows: int = 2, tokens: int = 12) -> dict[str, torch.Tensor]:
        """A batch of token ids without padding, none of them that of a special token; or of what else is taken."""
        generator = torch.Generator().manual_seed(2)
        config = self.config()
        if self.modality in MODALITIES:
            return MODALITIES[self.modality].inputs(config, rows, tokens, generator)
        most = getattr(config, "image_token_id", config.vocab_size)  # a placeholder stands for nothing without images
        return {"input_ids": torch.randint(5, most, (rows, tokens), generator=generator)}

    def labels(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Labels that fit the model's head, and what else training needs beside its input."""
        if self.modality in MODALITIES:
            return MODALITIES[self.modality].labels(model, inputs)
        name = type(model).__name__
        ids = inputs["input_ids"]
        if self.architecture.name == "retro" and "neighbour_ids" not in inputs:
            chunks = ids.shape[1] // model.config.chunk_size
            neighbours = ids.roll(1, dims=1)[:, None, None, :6].expand(-1, chunks, 2, -1)
            inputs = {**inputs, "neighbour_ids": neighbours}
            return {**self.labels(model, inputs), "neighbour_ids": neighbours}
        rows = len(ids)
        if self.architecture.name == "lam" and name.endswith("ForCausalLM"):
            return trajectory(model, inputs)
        if name == "ZooDprModel":
            return {"passage_input_ids": ids.flip(1)}
        if name == "ZooHibertForPreTraining":
            return {}
        if name.endswith(("ForCausalLM", "ForMaskedLM", "ForConceptPrediction")):
            return {"labels": ids}
        if name.endswith("ForConditionalGeneration"):
            return {"labels": inputs.get("decoder_input_ids", ids)}
        if name.endswith("ForPreTraining"):
            if model.config.is_encoder_decoder:
                return {"labels": ids, "tag_labels": ids % 2}
            pairs = hasattr(model, "seq_relationship")
            return {"labels": ids, **({"next_sentence_label": torch.arange(rows) % 2} if pairs else {})}
        if name.endswith("ForTokenClassification"):
            return {"labels": ids % model.config.num_labels}
        if name.endswith("ForQuestionAnswering"):
            return {"start_positions": torch.arange(rows), "end_positions": torch.arange(rows) + 2}
        return {"labels": torch.arange(rows) % 2}


# Parameters that no step can teach, in every attention with such a bias
BLIND_SPOT = {"k_proj.bias": "adds the same number to all scores of a query, which softmax does not see"}

CASES = {
    "zoo_llm": Case(ARCHITECTURES["zoo_llm"]),
    "zoo_latent": Case(ARCHITECTURES["zoo_latent"], no_prefix="the cache holds latents, no keys and values"),
    "zoo_sparse_transformer": Case(ARCHITECTURES["zoo_sparse_transformer"], {"stride": 3, "summary_size": 1}),
    "zoo_s4": Case(ARCHITECTURES["zoo_s4"]),
    "zoo_mamba": Case(ARCHITECTURES["zoo_mamba"]),
    "zoo_mamba2": Case(ARCHITECTURES["zoo_mamba2"]),
    "zoo_slm": Case(
        ARCHITECTURES["zoo_slm"],
        overrides={
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "linear_attention", "conv", "full_attention"],
        },
        waived={
            "test_cached_steps_after_padding": "padding on the right takes up places in a sliding window's cache, "
            "which keeps the last keys; on the left it does not, see tests/models/test_slm.py",
            "test_padding_between_tokens_changes_nothing": "padding takes up places in a sliding window",
        },
        never_learn={"score.bias": "adds the same number to all choices of a row, which softmax does not see"},
    ),
    "zoo_moe": Case(ARCHITECTURES["zoo_moe"]),
    "zoo_hybrid": Case(ARCHITECTURES["zoo_hybrid"]),
    "zoo_retro": Case(ARCHITECTURES["zoo_retro"], overrides={"chunk_size": 3}),
    "zoo_lcm": Case(
        ARCHITECTURES["zoo_lcm"],
        overrides={"sentence_token_ids": list(range(5, 512, 3))},
        never_learn={
            "predictor.sentences": "the encoder of sentences is frozen",
            "down.1.mixer_norm.bias": "it moves queries of two keys alone, by less than the test's least gradient",
        },
    ),
    "zoo_concept_predictor": Case(
        ARCHITECTURES["zoo_concept_predictor"],
        overrides={"concept_head": "regression"},  # the others draw noise; see tests/models/test_concept_predictor.py
        modality="concepts",
        waived={
            "test_loss_divides_by_the_items_of_all_batches": "a mean over concepts, of which a label has many numbers"
        },
    ),
    "zoo_mla": Case(ARCHITECTURES["zoo_mla"], no_prefix="the cache holds latents, no keys and values of one width"),
    "zoo_mlm": Case(
        ARCHITECTURES["zoo_mlm"],
        is_causal=False,
        never_learn=BLIND_SPOT,
    ),
    "zoo_dpr": Case(
        ARCHITECTURES["zoo_dpr"],
        is_causal=False,
        waived={
            "test_loss_divides_by_the_items_of_all_batches": "each question is compared with its batch's passages",
            "test_thirty_steps_overfit_a_batch": "equal rows cannot be told apart; see tests/models/test_dpr.py",
            "test_tied_weights_stay_tied": "there are no scores over the vocabulary",
            "test_resized_embeddings": "there are no scores over the vocabulary; see tests/models/test_dpr.py",
            "test_weights_of_another_shape_are_an_error": "sizes are those of the parts, which are tested themselves",
            "test_unknown_fields_are_refused_with_the_nearest": "sizes are those of the parts",
        },
        never_learn={
            **BLIND_SPOT,
            "qa_classifier": "one passage a question leaves nothing to choose; see tests/models/test_dpr.py",
            "qa_outputs.bias": "adds the same number to all tokens of a row, which softmax does not see",
        },
    ),
    "zoo_longformer": Case(
        ARCHITECTURES["zoo_longformer"],
        overrides={"attention_window": 4, "attention_dilation": [[1, 2, 1, 2], 1], "global_positions": [0, 3]},
        is_causal=False,
        never_learn={
            **BLIND_SPOT,
            "k_global_proj.bias": "adds the same number to all scores of a query, which softmax does not see",
            "layers.1.self_attn.q_proj": "a pooler reads the first token of the last layer, which is global",
            "layers.1.self_attn.k_proj": "a pooler reads the first token of the last layer, which is global",
            "layers.1.self_attn.v_proj": "a pooler reads the first token of the last layer, which is global",
            "score.bias": "adds the same number to all choices of a row, which softmax does not see",
            "qa_outputs.bias": "adds the same number to all tokens of a row, which softmax does not see",
        },
    ),
    "zoo_bigbird": Case(
        ARCHITECTURES["zoo_bigbird"],
        overrides={"block_size": 1, "num_random_blocks": 1},  # 12 tokens are 12 blocks: more than a block sees
        is_causal=False,
        never_learn={
            **BLIND_SPOT,
            "score.bias": "adds the same number to all choices of a row, which softmax does not see",
            "qa_outputs.bias": "adds the same number to all tokens of a row, which softmax does not see",
        },
    ),
    "zoo_hibert": Case(
        ARCHITECTURES["zoo_hibert"],
        overrides={"segment_size": 4},  # 12 tokens are 3 segments
        is_causal=False,
        never_learn={
            "target.": "follows the encoder without gradient",
            **BLIND_SPOT,
            "qa_outputs.bias": "adds the same number to all starts, which softmax does not see",
            "score.bias": "adds the same number to all choices of a row, which softmax does not see",
        },
    ),
    "zoo_deberta": Case(ARCHITECTURES["zoo_deberta"], is_causal=False),
    "zoo_seq2seq": Case(ARCHITECTURES["zoo_seq2seq"], is_causal=False),
    "zoo_fid": Case(ARCHITECTURES["zoo_fid"], is_causal=False),
    "zoo_gato": Case(
        ARCHITECTURES["zoo_gato"],
        never_learn={
            **BLIND_SPOT,
            "qa_outputs.bias": "adds the same number to all tokens of a row, which softmax does not see",
        },
    ),
    "zoo_tabular": Case(
        ARCHITECTURES["zoo_tabular"],
        modality="table",
        is_causal=False,
        never_learn=BLIND_SPOT,
    ),
    "zoo_sam": Case(
        ARCHITECTURES["zoo_sam"],
        modality="masks",
        is_causal=False,
        waived={
            "test_loss_divides_by_the_items_of_all_batches": "a mean over masks, each with clicks of its own",
            "test_thirty_steps_overfit_a_batch": "each step draws other clicks; see tests/models/test_sam.py",
        },
        never_learn={
            **BLIND_SPOT,
            "mask_embed": "no mask is given",
            "hypernetworks": "only the best of three masks learns",
        },
    ),
    "zoo_vit": Case(
        ARCHITECTURES["zoo_vit"],
        modality="pixels",
        is_causal=False,
        never_learn=BLIND_SPOT,
    ),
    "zoo_nfnet": Case(
        ARCHITECTURES["zoo_nfnet"],
        overrides={"residual_scale": 40.0},  # gains near zero would leave branches with little to say
        modality="pixels",
        is_causal=False,
        waived={"test_hidden_states_are_captured": "they are images of stages, see tests/models/test_nfnet.py"},
    ),
    "zoo_clip": Case(
        ARCHITECTURES["zoo_clip"],
        modality="pairs",
        is_causal=False,
        waived={
            "test_hidden_states_are_captured": "they are in the outputs of the towers, see tests/models/test_clip.py",
            "test_loss_divides_by_the_items_of_all_batches": "each pair is compared with those of its batch",
            "test_thirty_steps_overfit_a_batch": "equal rows cannot be told apart; see tests/models/test_clip.py",
            "test_weights_of_another_shape_are_an_error": "sizes are those of the parts, which are tested themselves",
            "test_unknown_fields_are_refused_with_the_nearest": "sizes are those of the parts",
        },
        never_learn=BLIND_SPOT,
    ),
    "zoo_vlm": Case(
        ARCHITECTURES["zoo_vlm"],
        modality="images in text",
        waived={
            "test_weights_of_another_shape_are_an_error": "sizes are those of the parts, which are tested themselves",
            "test_unknown_fields_are_refused_with_the_nearest": "sizes are those of the parts",
        },
        never_learn=BLIND_SPOT,
    ),
    "zoo_lam": Case(
        ARCHITECTURES["zoo_lam"],
        waived={
            "test_weights_of_another_shape_are_an_error": "sizes are those of the language model, tested itself",
            "test_unknown_fields_are_refused_with_the_nearest": "sizes are those of the language model",
        },
        never_learn={
            "tool_pointer.no_tool": "a number that softmax weighs against tools which here are far from it",
        },
    ),
    "zoo_point_bert": Case(
        ARCHITECTURES["zoo_point_bert"],
        modality="points",
        is_causal=False,
        never_learn={
            "in_proj.bias": "the batch norm that follows subtracts it",
            "mix_proj.bias": "the batch norm that follows subtracts it",
        },
    ),
    "zoo_beats": Case(
        ARCHITECTURES["zoo_beats"],
        modality="sound",
        is_causal=False,
        never_learn=BLIND_SPOT,
    ),
    "zoo_meta_transformer": Case(
        ARCHITECTURES["zoo_meta_transformer"],
        modality="everything",
        is_causal=False,
        waived={
            "test_weights_of_another_shape_are_an_error": "sizes are those of the encoder, which is tested itself",
            "test_unknown_fields_are_refused_with_the_nearest": "sizes are those of the encoder",
        },
        never_learn={"encoder.": "is frozen"},
    ),
    "zoo_cformer": Case(
        ARCHITECTURES["zoo_cformer"],
        modality="speech",
        is_causal=False,
        waived={
            "test_hidden_states_are_captured": "they are those of the parts, which are tested themselves",
            "test_weights_of_another_shape_are_an_error": "sizes are those of the parts, which are tested themselves",
        },
        never_learn={
            **BLIND_SPOT,
            "adaptor.embed_tokens": "states take the place of tokens",
            "adaptor.embed_positions": "there are more positions than tokens",
        },
    ),
    "zoo_imagebind": Case(
        ARCHITECTURES["zoo_imagebind"],
        overrides={"frozen_modalities": []},
        modality="six signals",
        is_causal=False,
        waived={
            "test_hidden_states_are_captured": "they are those of the towers",
            "test_loss_divides_by_the_items_of_all_batches": "each pair is compared with those of its batch",
            "test_thirty_steps_overfit_a_batch": "equal rows cannot be told apart; see tests/models/test_imagebind.py",
            "test_weights_of_another_shape_are_an_error": "sizes are those of the towers",
            "test_unknown_fields_are_refused_with_the_nearest": "sizes are those of the towers",
        },
        never_learn=BLIND_SPOT,
    ),
    "zoo_rwkv4": Case(ARCHITECTURES["zoo_rwkv4"]),
    "zoo_rwkv6": Case(ARCHITECTURES["zoo_rwkv6"]),
    "zoo_rwkv7": Case(ARCHITECTURES["zoo_rwkv7"]),
}


def takes_tokens(case: Case) -> bool:
    """Whether promises about token ids, padding, packing and vocabularies mean something."""
    return case.modality == "tokens"
