"""Heads of models that hear: what a sound is.

Shapes: B batch, T frames, M bins of a spectrum.
"""

from torch import Tensor
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .classifiers import ClassifierHead
from .losses import classification_loss


class AudioClassificationHead(ClassifierHead):
    """One label, several, or a number for a sound."""

    @can_return_tuple
    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutput:
        """Logits (B, num_labels).

        Args:
            input_values: (B, T, M).
            attention_mask: (B, T) with 1 on real frames.
            labels: (B) or (B, num_labels), see `classification_loss`.
            kwargs: see the trunk for the rest.
        """
        outputs = self.model(input_values=input_values, attention_mask=attention_mask, **kwargs)
        logits = self.score(self.dropout(outputs.pooler_output))
        loss = None
        if labels is not None:
            loss = classification_loss(logits, labels, self.config.problem_type, num_items_in_batch)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )
