"""BEATs: patches of a spectrogram, read by a deep post-norm transformer that learns from discrete acoustic labels.

Chen et al. 2022, https://arxiv.org/abs/2212.09058; blocks as in DeepNet, Wang et al. 2022,
https://arxiv.org/abs/2203.00555:

    x = LN(y + gelu(conv(y))),  y = W LN(E patch)
    x <- LN(alpha x + A(x));  x <- LN(alpha x + F(x)),  alpha = (2 L)^(1/4)

where A is attention with a gated bias of distance (layers/gated_relative_bias.py). Pre-training finds the labels of
hidden patches, first those of a random projection, then those of a tokenizer that was distilled from the model before:

    e = W_2 tanh(W_1 encoder(x)),  z = nearest code,  loss = 1 - cos(estimator(v_z), teacher(x)) + |v_z - e|^2

Shapes: B batch, S frames, M bins, T patches (row by row in time, low bins first), D hidden size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling, MaskedLMOutput
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from ..audio_heads import AudioClassificationHead
from ..base_model import ZooPreTrainedModel
from ..heads import Head
from ..layers.acoustic_tokenizer import NormalisedCodebook, RandomProjectionTokenizer
from ..layers.convolutional_positions import ConvolutionalPositions
from ..layers.dropout import Dropout
from ..layers.gated_relative_bias import GatedBiasAttention
from ..layers.mlp import MLP
from ..layers.patches import PatchEmbedding
from ..layers.pooler import pool
from ..layers.relative_bias import RelativePositionBias
from ..masks import drop_useless_mask
from .configuration_beats import ZooBeatsConfig

_GOLDEN_RATIO = (5**0.5 - 1) / 2


class BeatsBlock(GradientCheckpointingLayer):
    """Attention and a feed-forward network, each added to a scaled residual and normalised after."""

    def __init__(self, config: ZooBeatsConfig, layer_idx: int) -> None:
        super().__init__()
        size, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
        self.residual_scale = (2 * layers) ** 0.25
        self.self_attn = GatedBiasAttention(
            config, layer_idx, size, config.num_attention_heads, config.gate_input, config.attention_dropout
        )
        self.mixer_norm = nn.LayerNorm(size, eps=config.norm_eps)
        self.mlp = MLP(size, inner, config.hidden_act, bias=True)
        self.mlp_norm = nn.LayerNorm(size, eps=config.norm_eps)
        self.dropout = Dropout(config.hidden_dropout)
        gain = (8 * layers) ** -0.25  # of what the residual stream is made of
        for proj in (self.self_attn.q_proj, self.self_attn.k_proj):
            proj.init_scale = size**-0.5 / config.initializer_range
        for proj in (self.self_attn.v_proj, self.self_attn.o_proj):
            proj.init_scale = gain * size**-0.5 / config.initializer_range
        for proj in (self.mlp.up_proj, self.mlp.down_proj):
            proj.init_scale = gain * (2 / (size + inner)) ** 0.5 / config.initializer_range

    def forward(self, x: Tensor, bias: Tensor, hidden: Tensor | None) -> Tensor:
        """x (B, T, D), bias (1, H, T, T), hidden (B, 1, 1, T) true on padding -> (B, T, D)."""
        y = self.self_attn(x, bias, hidden)[0]
        x = self.mixer_norm(self.residual_scale * x + self.dropout(y))
        return self.mlp_norm(self.residual_scale * x + self.dropout(self.mlp(x)))


class ZooBeatsPreTrainedModel(ZooPreTrainedModel):
    """Base class: what the attention backends and loaders need to know."""

    config_class = ZooBeatsConfig
    config: ZooBeatsConfig
    main_input_name = "input_values"
    input_modalities = ("audio",)
    _input_embed_layer = "patch_embed"
    _no_split_modules = ["BeatsBlock"]
    _supports_sdpa = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": BeatsBlock, "attentions": GatedBiasAttention}

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """Two spectrograms of noise, five patches long and some frames that fill none."""
        generator = torch.Generator().manual_seed(0)
        shape = (2, 5 * self.config.patch_size + 3, self.config.num_mel_bins)
        x = torch.randn(shape, generator=generator)
        return {"input_values": x, "attention_mask": torch.ones(shape[:2], dtype=torch.long)}

    def mask_of_patches(self, attention_mask: Tensor | None) -> Tensor | None:
        """Mask of frames (B, S) -> of patches (B, T), true on those that have all their frames; None where all have.

        Raises:
            ValueError: a row has no whole patch.
        """
        attention_mask = drop_useless_mask(attention_mask)
        if attention_mask is None:
            return None
        rows = attention_mask.bool().unfold(1, self.config.patch_size, self.config.patch_size).all(-1)
        if not torch.compiler.is_compiling() and not bool(rows.any(-1).all()):
            raise ValueError(
                f"a row of attention_mask has no patch_size={self.config.patch_size} frames that are real"
            )
        return rows.repeat_interleave(self.config.num_mel_bins // self.config.patch_size, 1)

    def patches(self, input_values: Tensor) -> Tensor:
        """The numbers of each patch (B, T, P P) of spectrograms (B, S, M)."""
        size = self.config.patch_size
        return input_values.unfold(1, size, size).unfold(2, size, size).flatten(3).flatten(1, 2)


class BeatsEncoder(nn.Module):
    """Blocks that share one table of distances."""

    def __init__(self, config: ZooBeatsConfig, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(BeatsBlock(config, i) for i in range(num_layers))
        self.distances = RelativePositionBias(
            config.num_buckets, config.num_attention_heads, config.max_distance, False, config.initializer_range
        )

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, T, D), mask (B, T) true on what counts -> (B, T, D)."""
        bias = self.distances(x.shape[1], x.shape[1])
        hidden = None if mask is None else ~mask[:, None, None]
        for block in self.layers:
            x = block(x, bias, hidden)
        return x


class ZooBeatsModel(ZooBeatsPreTrainedModel):
    """The encoder without a head; `pooler_output` is the mean of the patches."""

    def __init__(self, config: ZooBeatsConfig) -> None:
        super().__init__(config)
        size = config.hidden_size
        self.patch_embed = PatchEmbedding(1, config.patch_embedding_size, config.patch_size, bias=False)
        self.patch_norm = nn.LayerNorm(config.patch_embedding_size, eps=config.norm_eps)
        self.patch_proj = nn.Linear(config.patch_embedding_size, size)
        self.embed_positions = ConvolutionalPositions(size, config.position_kernel_size, config.position_groups)
        self.embed_norm = nn.LayerNorm(size, eps=config.norm_eps)
        self.dropout = Dropout(config.hidden_dropout)
        self.encoder = BeatsEncoder(config, config.num_hidden_layers)
        self.gradient_checkpointing = False
        self.post_init()

    @capture_outputs
    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        hidden_patches: Tensor | None = None,
        mask_token: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Hidden states (B, T, D) of patches, T = (S // P) (M // P), and their mean (B, D) over real ones.

        Args:
            input_values: (B, S, M), normalised log spectra; frames that fill no patch are left out.
            attention_mask: (B, S) with 1 on real frames; padding gives the answer of none.
            hidden_patches: (B, T), true on patches for which `mask_token` (D) stands.
            mask_token: see `hidden_patches`.

        Raises:
            ValueError: another number of bins, less than a patch, or a mask of something else than frames.
        """
        size, bins = self.config.patch_size, self.config.num_mel_bins
        if input_values.ndim != 3 or input_values.shape[2] != bins or input_values.shape[1] < size:
            raise ValueError(
                f"input_values must be (sounds, frames, num_mel_bins={bins}) with at least patch_size={size} frames, "
                f"got {tuple(input_values.shape)}"
            )
        if attention_mask is not None and attention_mask.shape != input_values.shape[:2]:
            raise ValueError(
                f"attention_mask must be of frames, {tuple(input_values.shape[:2])} as input_values, "
                f"got {tuple(attention_mask.shape)}"
            )
        mask = self.mask_of_patches(attention_mask)
        x = self.patch_proj(self.patch_norm(self.patch_embed(input_values[:, None])))
        if hidden_patches is not None:
            x = torch.where(hidden_patches[..., None], mask_token, x)
        if mask is not None:
            x = x * mask[..., None]  # the convolution must not see padding
        x = self.dropout(self.embed_norm(x + self.embed_positions(x)))
        x = self.encoder(x, mask)
        return BaseModelOutputWithPooling(last_hidden_state=x, pooler_output=pool(x, mask, "mean"))


class ZooBeatsForAudioClassification(AudioClassificationHead, ZooBeatsPreTrainedModel):
    """A label for the sound, from the mean of its patches."""

    backbone_class = ZooBeatsModel


class ZooBeatsForPreTraining(Head, ZooBeatsPreTrainedModel):
    """Finds the acoustic labels of hidden patches: those given, or those of a random projection."""

    backbone_class = ZooBeatsModel

    def __init__(self, config: ZooBeatsConfig) -> None:
        super().__init__(config)
        self.mask_token = nn.Parameter(torch.empty(config.hidden_size))
        self.lm_head = nn.Linear(config.hidden_size, config.codebook_size)
        self.tokenizer = RandomProjectionTokenizer(config.patch_size**2, config.codebook_size, config.codebook_dim)
        self.post_init()

    @torch.no_grad()
    def initialise(self) -> None:
        """The token of a hidden patch."""
        init.normal_(self.mask_token, std=self.config.initializer_range)

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """The batch of all heads, with every second patch hidden."""
        inputs = super().dummy_inputs
        num_patches = self.patches(inputs["input_values"]).shape[1]
        return {**inputs, "hidden_patches": (torch.arange(num_patches) % 2 == 1).expand(2, -1)}

    @can_return_tuple
    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        hidden_patches: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MaskedLMOutput:
        """Scores of all labels (B, T, codebook_size), and the mean cross-entropy of hidden patches.

        Args:
            input_values: (B, S, M).
            attention_mask: (B, S) with 1 on real frames.
            hidden_patches: (B, T), true on what the model does not see; `draw_hidden_patches` without it.
            labels: (B, T), the label of every patch, from `ZooBeatsTokenizer.tokenize`; those of a random projection
                without it.
            kwargs: see the trunk for the rest.
        """
        if labels is None:
            labels = self.tokenizer(self.patches(input_values))
        if hidden_patches is None:
            hidden_patches = self.draw_hidden_patches(labels)
        hidden_patches = hidden_patches.bool()
        outputs = self.model(input_values, attention_mask, hidden_patches, self.mask_token, **kwargs)
        logits = self.lm_head(outputs.last_hidden_state)
        mask = self.mask_of_patches(attention_mask)
        counts = hidden_patches if mask is None else hidden_patches & mask
        loss = F.cross_entropy(logits[counts].float(), labels[counts], reduction="sum") / counts.sum().clamp_min(1)
        return MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def draw_hidden_patches(self, labels: Tensor) -> Tensor:
        """For labels (B, T) a share `mask_rate` of their places: in training at random, else always the same.

        The same are those of a sequence of lowest discrepancy, so that any stretch of time hides about as many.
        """
        if self.training:
            numbers = torch.rand(labels.shape, device=labels.device)
        else:
            numbers = (torch.arange(labels[0].numel(), device=labels.device) * _GOLDEN_RATIO).frac().expand_as(labels)
        return numbers < self.config.mask_rate


@dataclass
class AcousticTokenizerOutput(ModelOutput):
    """Of a tokenizer that is being distilled.

    Args:
        loss: of the teacher's states, and of how far codes are from what they stand for; None without a teacher.
        labels: (B, T).
        states: (B, T, D), what labels tell of the teacher's.
    """

    loss: Tensor | None = None
    labels: Tensor | None = None
    states: Tensor | None = None


class ZooBeatsTokenizer(ZooBeatsPreTrainedModel):
    """Labels that are worth finding: from them a teacher's hidden states can be told."""

    def __init__(self, config: ZooBeatsConfig) -> None:
        super().__init__(config)
        size = config.hidden_size
        self.model = ZooBeatsModel(config)
        self.quantize = nn.Sequential(nn.Linear(size, size), nn.Tanh(), nn.Linear(size, config.codebook_dim))
        self.codebook = NormalisedCodebook(config.codebook_size, config.codebook_dim)
        self.code_proj = nn.Linear(config.codebook_dim, size)
        self.estimator = BeatsEncoder(config, config.num_estimator_layers)
        self.state_proj = nn.Linear(size, size)
        self.post_init()

    @torch.no_grad()
    def spread_codes(self, input_values: Tensor, attention_mask: Tensor | None = None) -> None:
        """Put the codes where the patches of spectrograms (B, S, M) are, once, before training."""
        x = self.quantize(self.model(input_values, attention_mask).last_hidden_state)
        mask = self.mask_of_patches(attention_mask)
        self.codebook.spread(x.flatten(0, 1) if mask is None else x[mask])

    @torch.no_grad()
    def tokenize(self, input_values: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """The label (B, T) of each patch of spectrograms (B, S, M)."""
        x = self.model(input_values, attention_mask).last_hidden_state
        return self.codebook(self.quantize(x))[1]

    @can_return_tuple
    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        teacher_states: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> AcousticTokenizerOutput:
        """Labels of all patches and, with a teacher, the loss.

        Args:
            input_values: (B, S, M).
            attention_mask: (B, S) with 1 on real frames.
            teacher_states: (B, T, D), the last hidden states of the model that was trained before.
            kwargs: see the trunk for the rest.
        """
        x = self.model(input_values, attention_mask, **kwargs).last_hidden_state
        codes, labels, errors = self.codebook(self.quantize(x))
        mask = self.mask_of_patches(attention_mask)
        states = self.state_proj(self.estimator(self.code_proj(codes), mask))
        loss = None
        if teacher_states is not None:
            losses = 1 - F.cosine_similarity(states.float(), teacher_states.detach().float(), dim=-1) + errors.float()
            loss = losses.mean() if mask is None else (losses * mask).sum() / mask.sum()
        return AcousticTokenizerOutput(loss=loss, labels=labels, states=states)
