"""Point-BERT: a cloud of points as groups of neighbours, read by a vision transformer and learnt as words are.

Yu et al. 2021, https://arxiv.org/abs/2111.14819; as the 3D encoder of ULIP, Xue et al. 2022,
https://arxiv.org/abs/2212.05171, and ULIP-2, https://arxiv.org/abs/2305.08275.

    c = farthest points of x,  n_g = kNN(x, c_g) - c_g,  t_g = PointNet(n_g),  p_g = W_2 gelu(W_1 c_g)
    z <- B_l(z + [p_cls; p]),  z_0 = [t_cls; t],  B_l a pre-norm block
    y = [z_cls; max_g z_g],  or a projection of it

The tokenizer is a discrete variational autoencoder of the same groups:

    q_g = Gumbel softmax(graph network(t)_g / tau),  t'_g = q_g E,  points'_g = folding(graph network'(t')_g)
    loss = Chamfer(coarse', n) + Chamfer(fine', n) + beta KL(uniform || mean q)

and pre-training finds the tokens of hidden groups: -log softmax(W z_g)[token_g].

Shapes: B clouds, N points, C numbers a point, G groups, M points of a group, T = 1 + G tokens, D hidden size.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling, MaskedLMOutput, SequenceClassifierOutput
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from ..base_model import ZooPreTrainedModel
from ..classifiers import ClassifierHead
from ..heads import Head
from ..layers.graph_convolution import GraphNetwork
from ..layers.image_attention import ImageAttention
from ..layers.point_folding import PointFolding
from ..layers.point_groups import group_points, nearest_points
from ..layers.point_net import PointNet, PointNorm
from ..losses import chamfer_loss, classification_loss, code_usage_loss
from ..vit.modeling_vit import VitBlock
from .configuration_point_bert import ZooPointBertConfig

_TOKEN_STD = 0.02


class PointBlock(VitBlock):
    """A block of the vision transformer that is told the positions anew."""

    def forward(self, x: Tensor, positions: Tensor, **kwargs: Any) -> Tensor:
        """x (B, T, D), positions (B, T, D) -> (B, T, D)."""
        return super().forward(x + positions, None, **kwargs)


class ZooPointBertPreTrainedModel(ZooPreTrainedModel):
    """Base class: what the attention backends and loaders need to know."""

    config_class = ZooPointBertConfig
    config: ZooPointBertConfig
    main_input_name = "points"
    _input_embed_layer = "embed_groups"
    _no_split_modules = ["PointBlock", "PointNet"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": PointBlock, "attentions": ImageAttention}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, PointNorm):
            module.reset_running_stats()

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """Two clouds of noise."""
        generator = torch.Generator().manual_seed(0)
        return {"points": torch.randn(2, self.config.num_points, self.config.num_channels, generator=generator)}

    def group(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """points (B, N, C) -> centres (B, G, 3) and groups (B, G, M, C).

        Raises:
            ValueError: another number of channels, or fewer points than a group or than there are groups.
        """
        config = self.config
        least = max(config.group_size, config.num_groups)
        if points.ndim != 3 or points.shape[2] != config.num_channels or points.shape[1] < least:
            raise ValueError(
                f"points must be (clouds, points, num_channels={config.num_channels}) with at least {least} points, "
                f"got {tuple(points.shape)}"
            )
        return group_points(points, config.num_groups, config.group_size)


class ZooPointBertModel(ZooPointBertPreTrainedModel):
    """The transformer without a head; `pooler_output` is the cloud."""

    def __init__(self, config: ZooPointBertConfig) -> None:
        super().__init__(config)
        size = config.hidden_size
        self.embed_groups = PointNet(config.num_channels, config.group_embedding_size, size)
        self.embed_positions = nn.Sequential(
            nn.Linear(3, config.position_size), nn.GELU(), nn.Linear(config.position_size, size)
        )
        self.cls_token = nn.Parameter(torch.zeros(size))
        self.cls_position = nn.Parameter(torch.zeros(size))
        self.layers = nn.ModuleList(PointBlock(config, i) for i in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(size, eps=config.norm_eps)
        self.projection = nn.Linear(2 * size, config.projection_dim, bias=False) if config.projection_dim else None
        self.gradient_checkpointing = False
        self.post_init()

    @torch.no_grad()
    def initialise(self) -> None:
        """The class token and its position, as other tokens."""
        init.trunc_normal_(self.cls_token, std=_TOKEN_STD)
        init.trunc_normal_(self.cls_position, std=_TOKEN_STD)

    @capture_outputs
    def forward(
        self,
        points: Tensor,
        hidden_groups: Tensor | None = None,
        mask_token: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Hidden states (B, 1 + G, D), the class token first, and the cloud as one vector (B, pooled size).

        Args:
            points: (B, N, C), the first three of C where a point is.
            hidden_groups: (B, G), true on groups for which `mask_token` (D) stands.
            mask_token: see `hidden_groups`.
        """
        centres, groups = self.group(points)
        x = self.embed_groups(groups)
        if hidden_groups is not None:
            x = torch.where(hidden_groups[..., None], mask_token, x)
        positions = self.embed_positions(centres.to(x.dtype))
        x = torch.cat((self.cls_token.expand(len(x), 1, -1), x), dim=1)
        positions = torch.cat((self.cls_position.expand(len(x), 1, -1), positions), dim=1)
        for block in self.layers:
            x = block(x, positions)
        x = self.norm(x)
        pooled = torch.cat((x[:, 0], x[:, 1:].amax(1)), dim=-1)
        return BaseModelOutputWithPooling(
            last_hidden_state=x, pooler_output=pooled if self.projection is None else self.projection(pooled)
        )


class ZooPointBertForSequenceClassification(ClassifierHead, ZooPointBertPreTrainedModel):
    """A class, several, or a number for the cloud, which is a sequence of groups."""

    backbone_class = ZooPointBertModel

    def make_score(self, config: ZooPointBertConfig) -> nn.Module:
        """One linear layer on the class token and the largest of each channel."""
        return nn.Linear(config.pooled_size, config.num_labels)

    @can_return_tuple
    def forward(
        self,
        points: Tensor,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutput:
        """Logits (B, num_labels).

        Args:
            points: (B, N, C).
            labels: (B) or (B, num_labels), see `classification_loss`.
            kwargs: see the trunk for the rest.
        """
        outputs = self.model(points, **kwargs)
        logits = self.score(self.dropout(outputs.pooler_output))
        loss = None
        if labels is not None:
            loss = classification_loss(logits, labels, self.config.problem_type, num_items_in_batch)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class ZooPointBertForPreTraining(Head, ZooPointBertPreTrainedModel):
    """Finds the point tokens of hidden groups, which `ZooPointBertTokenizer.tokenize` gives as labels."""

    backbone_class = ZooPointBertModel

    def __init__(self, config: ZooPointBertConfig) -> None:
        super().__init__(config)
        self.mask_token = nn.Parameter(torch.zeros(config.hidden_size))
        self.lm_head = nn.Linear(config.hidden_size, config.codebook_size)
        self.post_init()

    @torch.no_grad()
    def initialise(self) -> None:
        """The token of a hidden group, as other tokens."""
        init.trunc_normal_(self.mask_token, std=_TOKEN_STD)

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """The batch of all heads, with every second group hidden."""
        hidden = (torch.arange(self.config.num_groups) % 2 == 1).expand(2, -1)
        return {**super().dummy_inputs, "hidden_groups": hidden}

    @can_return_tuple
    def forward(
        self,
        points: Tensor,
        hidden_groups: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MaskedLMOutput:
        """Scores of all tokens (B, G, codebook_size) and, with labels, the mean cross-entropy of hidden groups.

        Args:
            points: (B, N, C).
            hidden_groups: (B, G), true on what the model does not see; with labels and without it, a group and its
                nearest ones are drawn for each cloud.
            labels: (B, G), the token of every group, hidden or not.
            num_items_in_batch: labels of all accumulated batches.
            kwargs: see the trunk for the rest.
        """
        if hidden_groups is None and labels is not None:
            hidden_groups = self.draw_hidden_groups(points)
        mask = None if hidden_groups is None else hidden_groups.bool()
        outputs = self.model(points, mask, self.mask_token, **kwargs)
        logits = self.lm_head(outputs.last_hidden_state[:, 1:])
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[mask].float(), labels[mask])
            if num_items_in_batch is not None:
                loss = loss * (labels.numel() / num_items_in_batch)
        return MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    @torch.no_grad()
    def draw_hidden_groups(self, points: Tensor) -> Tensor:
        """For each cloud of points (B, N, C) a random group with those nearest to it (B, G)."""
        centres, _ = self.group(points)
        least, most = self.config.mask_rate
        num_groups = self.config.num_groups
        shares = torch.empty(len(points), device=points.device).uniform_(least, most)
        counts = (shares * num_groups).long().clamp_min(1)
        seeds = torch.randint(num_groups, (len(points), 1, 1), device=points.device).expand(-1, 1, 3)
        distance = (centres - centres.gather(1, seeds)).square().sum(-1)
        return distance.argsort(-1).argsort(-1) < counts[:, None]


@dataclass
class PointTokenizerOutput(ModelOutput):
    """Of the tokenizer.

    Args:
        loss: of what it makes of its tokens, and of codes that are not in use.
        logits: (B, G, codebook_size).
        coarse_points: (B, G, M / 4, 3), around the centre of each group.
        fine_points: (B, G, M, 3).
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    coarse_points: Tensor | None = None
    fine_points: Tensor | None = None


class ZooPointBertTokenizer(ZooPointBertPreTrainedModel):
    """The discrete variational autoencoder whose codes are the words of pre-training; it needs no labels to learn.

    `temperature` is an attribute, from 1 at the start of training to 1 / 16 at its end in the paper.
    """

    temperature = 1.0

    def __init__(self, config: ZooPointBertConfig) -> None:
        super().__init__(config)
        size = config.group_embedding_size
        self.embed_groups = PointNet(config.num_channels, size, size)
        self.encoder = GraphNetwork(size, config.codebook_size, config.graph_size)
        self.codebook = nn.Parameter(torch.zeros(config.codebook_size, config.codebook_dim))
        self.decoder = GraphNetwork(config.codebook_dim, size, config.graph_size)
        self.folding = PointFolding(size, config.group_size, config.folding_size)
        self.post_init()

    @torch.no_grad()
    def initialise(self) -> None:
        """Codes of N(0, 1)."""
        init.normal_(self.codebook)

    def _encode(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, G, codes), groups (B, G, M, C), and the neighbours (B, G, K) of each group."""
        centres, groups = self.group(points)
        neighbours = nearest_points(centres, centres, self.config.graph_neighbors)
        return self.encoder(self.embed_groups(groups), neighbours), groups, neighbours

    @torch.no_grad()
    def tokenize(self, points: Tensor) -> Tensor:
        """points (B, N, C) -> the token of each group (B, G), in the order in which the model reads groups."""
        return self._encode(points)[0].argmax(-1)

    @can_return_tuple
    def forward(self, points: Tensor, **kwargs: Unpack[TransformersKwargs]) -> PointTokenizerOutput:
        """Points (B, N, C) from their own tokens, which in training are drawn and in evaluation the likeliest."""
        logits, groups, neighbours = self._encode(points)
        if self.training:
            weights = F.gumbel_softmax(logits, tau=self.temperature, dim=-1)
        else:
            weights = F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
        coarse, fine = self.folding(self.decoder(weights @ self.codebook, neighbours))
        places = groups[..., :3]
        loss = chamfer_loss(coarse, places) + chamfer_loss(fine, places)
        loss = loss + self.config.code_usage_coefficient * code_usage_loss(logits)
        return PointTokenizerOutput(loss=loss, logits=logits, coarse_points=coarse, fine_points=fine)
