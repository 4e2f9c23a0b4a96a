"""Transformers whose tokens are the columns of a table.

FT-Transformer, Gorishniy et al. 2021, https://arxiv.org/abs/2106.11959, sections 3.3 and 3.4:

    T = [CLS, T_1, ..., T_k],   x <- x + A(N1(x)),  x <- x + F(N2(x)),   y = W relu(N(x_CLS)),   F a ReGLU

where the first block has no N1. TabTransformer, Huang et al. 2020, https://arxiv.org/abs/2012.06678, section 2:

    T = [T_1, ..., T_c] of the categories alone,   x <- N1(x + A(x)),  x <- N2(x + F(x))
    y = MLP([x_1, ..., x_c, LayerNorm(numbers)])

The tokens themselves are in layers/column_embedding.py.

Shapes: B rows, N numeric columns, C columns of categories, T tokens (1 + N + C, or C), D hidden size.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling, MaskedLMOutput, SequenceClassifierOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from ..base_model import ZooPreTrainedModel
from ..classifiers import ClassifierHead
from ..heads import Head
from ..layers.attention import Attention
from ..layers.column_embedding import (
    CategoryEmbedding,
    IdentifiedCategoryEmbedding,
    NumberEmbedding,
    PiecewiseLinearEmbedding,
)
from ..layers.dropout import Dropout
from ..layers.mlp import MLP, GatedMLP, activation
from ..losses import classification_loss, replaced_token_loss
from .configuration_tabular import ZooTabularConfig


class ColumnEmbedding(nn.Module):
    """The tokens of those columns that the blocks see: numbers first, then categories."""

    def __init__(self, config: ZooTabularConfig) -> None:
        super().__init__()
        self.numbers = self.categories = None
        self.hidden_size = size = config.hidden_size
        if config.form == "ft" and config.num_numeric_columns:
            if config.numeric_bins is None:
                self.numbers = NumberEmbedding(config.num_numeric_columns, size)
            else:
                self.numbers = PiecewiseLinearEmbedding(config.numeric_bins, size)
        if config.category_sizes and config.identifier_size:
            self.categories = IdentifiedCategoryEmbedding(config.category_sizes, size, config.identifier_size)
        elif config.category_sizes:
            self.categories = CategoryEmbedding(config.category_sizes, size)

    def forward(self, numeric_values: Tensor | None, category_ids: Tensor | None) -> Tensor:
        """numeric_values (B, N), category_ids (B, C) -> (B, N + C, D), or (B, C, D) of TabTransformer."""
        tokens = [] if self.numbers is None else [self.numbers(numeric_values)]
        tokens += [] if self.categories is None else [self.categories(category_ids)]
        if not tokens:  # TabTransformer without categories is an MLP
            return numeric_values.new_zeros(len(numeric_values), 0, self.hidden_size)
        return torch.cat(tokens, dim=1)


class RowNumbers(nn.Module):
    """LayerNorm over the numbers of a row; a missing one has a learnt value."""

    def __init__(self, num_columns: int, norm_eps: float) -> None:
        super().__init__()
        self.missing = nn.Parameter(torch.empty(num_columns))
        self.norm = nn.LayerNorm(num_columns, eps=norm_eps)

    @torch.no_grad()
    def initialise(self) -> None:
        """A missing number starts as 0, the mean of a column that was standardised."""
        init.zeros_(self.missing)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, N), NaN where a value is missing -> (B, N)."""
        return self.norm(torch.where(x.isnan(), self.missing, x.to(self.missing.dtype)))


class TabularBlock(GradientCheckpointingLayer):
    """Attention between columns, then a feed-forward network, each with its norm and residual."""

    def __init__(self, config: ZooTabularConfig, layer_idx: int) -> None:
        super().__init__()
        size, heads = config.hidden_size, config.num_attention_heads
        self.is_post_norm = config.form == "tab"
        self.self_attn = Attention(
            config,
            layer_idx,
            size,
            heads,
            heads,
            size // heads,
            bias=True,
            dropout=config.attention_dropout,
            is_causal=False,
        )
        # Tokens come fresh from their tables: a norm before the first attention makes FT-Transformer much worse
        has_mixer_norm = self.is_post_norm or layer_idx > 0
        self.mixer_norm = nn.LayerNorm(size, eps=config.norm_eps) if has_mixer_norm else None
        mlp = MLP if self.is_post_norm else GatedMLP
        self.mlp = mlp(size, config.intermediate_size, config.hidden_act, bias=True, dropout=config.mlp_dropout)
        self.mlp_norm = nn.LayerNorm(size, eps=config.norm_eps)
        self.dropout = Dropout(config.residual_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        if self.is_post_norm:
            x = self.mixer_norm(x + self.dropout(self.self_attn(x)[0]))
            return self.mlp_norm(x + self.dropout(self.mlp(x)))
        normed = x if self.mixer_norm is None else self.mixer_norm(x)
        x = x + self.dropout(self.self_attn(normed)[0])
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class ZooTabularPreTrainedModel(ZooPreTrainedModel):
    """Base class: what the attention backends and loaders need to know."""

    config_class = ZooTabularConfig
    config: ZooTabularConfig
    main_input_name = "numeric_values"
    _input_embed_layer = "embed_columns"
    _no_split_modules = ["TabularBlock"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": TabularBlock, "attentions": Attention}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Linear layers start as the authors', uniform in ±1 / sqrt(inputs)."""
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A complete, valid batch of 2 rows for this configuration; one number is missing."""
        generator = torch.Generator().manual_seed(0)
        inputs = {}
        if self.config.num_numeric_columns:
            values = torch.randn(2, self.config.num_numeric_columns, generator=generator)
            values[0, 0] = math.nan
            inputs["numeric_values"] = values
        if sizes := self.config.category_sizes:
            draws = torch.rand(2, len(sizes), generator=generator)
            inputs["category_ids"] = (draws * torch.tensor(sizes)).long()
        return inputs


class ZooTabularModel(ZooTabularPreTrainedModel):
    """The transformer without a head; `pooler_output` is the row."""

    def __init__(self, config: ZooTabularConfig) -> None:
        super().__init__(config)
        self.embed_columns = ColumnEmbedding(config)
        is_ft = config.form == "ft"
        num_layers = config.num_hidden_layers if is_ft or config.category_sizes else 0  # no tokens, no blocks
        self.layers = nn.ModuleList(TabularBlock(config, i) for i in range(num_layers))
        self.cls_token = nn.Parameter(torch.empty(config.hidden_size)) if is_ft else None
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps) if is_ft else None
        has_row_numbers = not is_ft and config.num_numeric_columns
        self.row_numbers = RowNumbers(config.num_numeric_columns, config.norm_eps) if has_row_numbers else None
        self.gradient_checkpointing = False
        self.post_init()

    @torch.no_grad()
    def initialise(self) -> None:
        """[CLS] starts as the other tokens do."""
        if self.cls_token is not None:
            bound = 1 / math.sqrt(self.config.hidden_size)
            init.uniform_(self.cls_token, -bound, bound)

    @capture_outputs
    def forward(
        self,
        numeric_values: Tensor | None = None,
        category_ids: Tensor | None = None,
        column_embeds: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """The last hidden state (B, T, D), with [CLS] first, and the row as one vector.

        Args:
            numeric_values: (B, N), NaN where a value is missing.
            category_ids: (B, C), 0 where a category is missing or was never seen.
            column_embeds: (B, N + C, D), or (B, C, D) of TabTransformer, the tokens instead of what makes them.

        Raises:
            ValueError: columns that the configuration has are not there, or are others.
        """
        self._check(numeric_values, category_ids, column_embeds)
        x = self.embed_columns(numeric_values, category_ids) if column_embeds is None else column_embeds
        if self.cls_token is not None:
            x = torch.cat((self.cls_token.expand(len(x), 1, -1), x), dim=1)
        for block in self.layers:
            x = block(x)
        if self.norm is not None:
            x = self.norm(x)
            return BaseModelOutputWithPooling(last_hidden_state=x, pooler_output=F.relu(x[:, 0]))
        row = [x.flatten(1)] if x.shape[1] else []
        row += [] if self.row_numbers is None else [self.row_numbers(numeric_values)]
        return BaseModelOutputWithPooling(last_hidden_state=x, pooler_output=torch.cat(row, dim=-1))

    def _check(self, numeric_values: Tensor | None, category_ids: Tensor | None, column_embeds: Tensor | None) -> None:
        expected = {
            "numeric_values": (numeric_values, self.config.num_numeric_columns, self.row_numbers is not None),
            "category_ids": (category_ids, len(self.config.category_sizes), False),
        }
        for name, (values, num_columns, is_no_token) in expected.items():
            if values is None and (column_embeds is None or is_no_token) and num_columns:
                raise ValueError(f"{name} is missing: the model has {num_columns} such columns")
            if values is None:
                continue
            if column_embeds is not None and not is_no_token:
                raise ValueError(f"give {name} or column_embeds, not both")
            if values.ndim != 2 or values.shape[1] != num_columns:
                raise ValueError(f"{name} must be (rows, {num_columns}), got {tuple(values.shape)}")


class ZooTabularForSequenceClassification(ClassifierHead, ZooTabularPreTrainedModel):
    """A class, several, or a number for the row, whose columns are the sequence."""

    backbone_class = ZooTabularModel

    def make_score(self, config: ZooTabularConfig) -> nn.Module:
        """One linear layer on [CLS], or TabTransformer's MLP on the whole row."""
        if config.form == "ft":
            return super().make_score(config)
        sizes = [config.row_size, *(config.row_size * factor for factor in config.row_mlp_factors)]
        hidden = [m for pair in pairwise(sizes) for m in (nn.Linear(*pair), activation(config.hidden_act))]
        return nn.Sequential(*hidden, nn.Linear(sizes[-1], config.num_labels))

    @can_return_tuple
    def forward(
        self,
        numeric_values: Tensor | None = None,
        category_ids: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutput:
        """Logits (B, num_labels).

        Args:
            labels: (B) or (B, num_labels), see `classification_loss`.
            kwargs: see the trunk for the rest.
        """
        outputs = self.model(numeric_values, category_ids, **kwargs)
        logits = self.score(self.dropout(outputs.pooler_output))
        loss = None
        if labels is not None:
            loss = classification_loss(logits, labels, self.config.problem_type, num_items_in_batch)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class ZooTabularForPreTraining(Head, ZooTabularPreTrainedModel):
    """Learns without labels: fills in hidden columns, or finds the values that came from another row.

    Of TabTransformer only columns of categories are tokens, and so only they are hidden or replaced.
    """

    backbone_class = ZooTabularModel

    def __init__(self, config: ZooTabularConfig) -> None:
        super().__init__(config)
        embedding = self.model.embed_columns
        self.num_numbers = config.num_numeric_columns if embedding.numbers is not None else 0
        self.num_columns = self.num_numbers + len(config.category_sizes)
        if not self.num_columns:
            raise ValueError('form="tab" without category_sizes has no tokens, so there is nothing to hide')
        size = config.hidden_size
        self.is_masked = config.pretraining_objective == "masked_columns"
        self.mask_token = nn.Parameter(torch.empty(size)) if self.is_masked else None
        # A row of weights for what is predicted: each number and each category, or each column
        num_outputs = self.num_numbers + sum(config.category_sizes) if self.is_masked else self.num_columns
        self.fill = nn.Linear(size, num_outputs)
        self.post_init()

    @torch.no_grad()
    def initialise(self) -> None:
        """The token of a hidden column starts as other tokens do."""
        if self.mask_token is not None:
            bound = 1 / math.sqrt(self.config.hidden_size)
            init.uniform_(self.mask_token, -bound, bound)

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """The batch of all heads, with every second column hidden."""
        hidden = torch.arange(2 * self.num_columns).view(2, -1) % 2 == 1
        return {**super().dummy_inputs, "masked_columns": hidden}

    @can_return_tuple
    def forward(
        self,
        numeric_values: Tensor | None = None,
        category_ids: Tensor | None = None,
        masked_columns: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MaskedLMOutput:
        """Loss, and logits: of hidden columns (B, N + categories of all columns), a number for each numeric column,
        then the scores of its categories for each other; of replaced values (B, columns), positive where a value
        looks replaced.

        Args:
            numeric_values: (B, N), NaN where a value is missing; a missing one is not to be filled in.
            category_ids: (B, C).
            masked_columns: (B, tokens without [CLS]), true on what is hidden or replaced; drawn without it.
            kwargs: see the trunk for the rest.
        """
        is_ft = self.config.form == "ft"
        first = category_ids if numeric_values is None else numeric_values
        if masked_columns is None:
            rates = torch.full((len(first), self.num_columns), self.config.mask_rate, device=first.device)
            masked_columns = torch.bernoulli(rates).bool()
        if self.is_masked:
            embeds = self.model.embed_columns(numeric_values, category_ids)
            embeds = torch.where(masked_columns[..., None], self.mask_token, embeds)
        else:
            *columns, is_replaced = self._replaced(numeric_values, category_ids, masked_columns)
            embeds = self.model.embed_columns(*columns)
        outputs = self.model(None if is_ft else numeric_values, None, embeds, **kwargs)
        x = outputs.last_hidden_state[:, 1:] if is_ft else outputs.last_hidden_state
        if self.is_masked:
            logits = self._fill_in(x)
            loss = self._filling_loss(logits, numeric_values, category_ids, masked_columns)
        else:
            logits = (x * self.fill.weight).sum(-1) + self.fill.bias
            loss = replaced_token_loss(logits, is_replaced)
        return MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def _replaced(
        self, numeric_values: Tensor | None, category_ids: Tensor | None, masked_columns: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor]:
        """Both kinds of columns with the values of the row before where masked, and where that is another value."""
        of_numbers, of_categories = masked_columns.split((self.num_numbers, len(self.config.category_sizes)), dim=1)
        changes = []
        if self.num_numbers:
            donors = numeric_values.roll(1, dims=0)
            is_same = (donors == numeric_values) | (donors.isnan() & numeric_values.isnan())
            changes.append(of_numbers & ~is_same)
            numeric_values = torch.where(of_numbers, donors, numeric_values)
        if self.config.category_sizes:
            donors = category_ids.roll(1, dims=0)
            changes.append(of_categories & (donors != category_ids))
            category_ids = torch.where(of_categories, donors, category_ids)
        return numeric_values, category_ids, torch.cat(changes, dim=1)

    def _fill_in(self, x: Tensor) -> Tensor:
        """x (B, columns, D) -> a number for each numeric column and scores of the categories of each other, side by
        side; each from its own column alone."""
        sizes = [1] * self.num_numbers + self.config.category_sizes
        column = torch.repeat_interleave(torch.tensor(sizes, device=x.device))  # of each output
        return (x[:, column] * self.fill.weight).sum(-1) + self.fill.bias

    def _filling_loss(
        self, logits: Tensor, numeric_values: Tensor | None, category_ids: Tensor | None, masked_columns: Tensor
    ) -> Tensor:
        """Squared error of numbers and cross-entropy of categories, the mean over what is hidden and known."""
        of_numbers, of_categories = masked_columns.split((self.num_numbers, len(self.config.category_sizes)), dim=1)
        numbers, *scores = logits.float().split((self.num_numbers, *self.config.category_sizes), dim=1)
        total, count = numbers.new_zeros(()), numbers.new_zeros(())
        if self.num_numbers:
            counts = of_numbers & ~numeric_values.isnan()
            errors = (numbers - numeric_values.nan_to_num()).square()
            total, count = total + (errors * counts).sum(), count + counts.sum()
        if self.config.category_sizes:
            counts = of_categories & (category_ids > 0)
            targets = category_ids.masked_fill(~counts, -100)
            for column, target in zip(scores, targets.unbind(1), strict=True):
                total = total + F.cross_entropy(column, target, reduction="sum")
            count = count + counts.sum()
        return total / count.clamp_min(1)
