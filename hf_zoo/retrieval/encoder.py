"""Texts to vectors by any encoder: a dual encoder's own towers, or what a pooling makes of hidden states.

Shapes: N texts, B batch, T tokens, D vector size.
"""

import hashlib
import inspect
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import ModelOutput

from hf_zoo.modeling.layers.pooler import POOLINGS as PARTS_OF_HIDDEN_STATES
from hf_zoo.modeling.layers.pooler import pool

from ..errors import unknown_name

_HASHED = 256  # numbers of each end of a tensor that go into the fingerprint: training changes them all


POOLINGS = ("own", "pooler", *PARTS_OF_HIDDEN_STATES)


class TextEncoder:
    """A model and its tokenizer as functions from questions and from passages to vectors.

    Args:
        model: a dual encoder (with `embed_questions` and `embed_passages`), or any encoder or decoder of text.
        tokenizer: the model's.
        pooling: "own" for a dual encoder's vectors; "mean" of the real tokens, the first ("cls"), the "last" (for
            decoders), or the model's "pooler". By default "own" where the model has it, else "mean".
        max_length: tokens beyond it are cut off; by default as many as tokenizer and model take, at most 512.
        is_normalised: whether vectors get length 1, so that the inner product is the cosine.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        pooling: str | None = None,
        max_length: int | None = None,
        is_normalised: bool = False,
    ) -> None:
        has_own = hasattr(model, "embed_passages")
        self.pooling = pooling or ("own" if has_own else "mean")
        if self.pooling not in POOLINGS:
            raise unknown_name("pooling", self.pooling, POOLINGS)
        if self.pooling == "own" and not has_own:
            raise ValueError(f"pooling='own' needs a dual encoder such as zoo_dpr; {type(model).__name__} is none")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        if tokenizer.pad_token is None:
            raise ValueError("the tokenizer has no pad_token, which batches need; set tokenizer.pad_token")
        self.model = model.eval()
        self.tokenizer = tokenizer
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 512
        self.max_length = max_length or min(tokenizer.model_max_length, positions, 512)
        self.is_normalised = is_normalised

    @classmethod
    def from_pretrained(cls, name: str, **options: str | int | bool | None) -> "TextEncoder":
        """A model and its tokenizer from a folder or the Hub; `options` as above."""
        from ..registration import register

        register()
        config = AutoConfig.from_pretrained(name)
        return cls(AutoModel.from_pretrained(name, config=config), AutoTokenizer.from_pretrained(name), **options)

    def description(self) -> dict[str, str | int | bool]:
        """What an index remembers of its encoder; two that differ give vectors that must not be compared."""
        name = getattr(self.model, "name_or_path", "") or type(self.model).__name__
        settings = {"pooling": self.pooling, "max_length": self.max_length, "is_normalised": self.is_normalised}
        return {"name": name, "fingerprint": self.fingerprint(), **settings}

    def fingerprint(self) -> str:
        """A hash of the weights, from some numbers of each tensor, and of how words become tokens."""
        digest = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            flat = value.detach().reshape(-1)
            ends = torch.cat([flat[:_HASHED], flat[-_HASHED:]]).float().cpu().numpy()
            digest.update(f"{name} {tuple(value.shape)}".encode() + ends.tobytes())
        words = self.tokenizer("The quick brown fox, 0123456789: jumps()!")["input_ids"]
        digest.update(str((len(self.tokenizer), words)).encode())
        return digest.hexdigest()[:32]

    def questions(self, texts: list[str], batch_size: int = 32) -> np.ndarray:
        """Vectors of questions (N, D) in float32."""
        return self._encode(texts, batch_size, getattr(self.model, "embed_questions", None))

    def passages(self, texts: list[str], batch_size: int = 32) -> np.ndarray:
        """Vectors of passages (N, D) in float32."""
        return self._encode(texts, batch_size, getattr(self.model, "embed_passages", None))

    def _encode(self, texts: list[str], batch_size: int, own: Callable[..., Tensor] | None) -> np.ndarray:
        if not texts:
            raise ValueError("there are no texts to encode")
        vectors: np.ndarray | None = None
        for rows, batch in self.batches(texts, batch_size):
            with torch.inference_mode():
                made = self._vectors(batch, own).float().cpu().numpy()
            if vectors is None:
                vectors = np.empty((len(texts), made.shape[-1]), np.float32)
            vectors[rows] = made
        return vectors

    def batches(self, texts: list[str], batch_size: int) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
        """Rows and their padded tokens; texts of like length go together, so that little of a batch is padding."""
        tokens = self.tokenizer(texts, truncation=True, max_length=self.max_length)
        lengths = [len(ids) for ids in tokens["input_ids"]]
        order = sorted(range(len(texts)), key=lengths.__getitem__, reverse=True)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            part = {name: [values[row] for row in rows] for name, values in tokens.items()}
            batch = self.tokenizer.pad(part, return_tensors="pt")
            yield rows, {name: value.to(self.model.device) for name, value in batch.items()}

    def _vectors(self, batch: dict[str, Tensor], own: Callable[..., Tensor] | None) -> Tensor:
        if self.pooling == "own":
            y = own(**batch)
        elif self.pooling == "pooler":
            y = getattr(self._forward(batch), "pooler_output", None)
            if y is None:
                raise ValueError(f"{type(self.model).__name__} has no pooler; choose pooling='mean' or 'cls'")
        else:
            y = pool(self._forward(batch).last_hidden_state, batch["attention_mask"], self.pooling)
        return F.normalize(y.float(), dim=-1) if self.is_normalised else y

    def _forward(self, batch: dict[str, Tensor]) -> ModelOutput:
        """The trunk's output; what the tokenizer made and the model does not take is left out."""
        takes = inspect.signature(self.model.forward).parameters
        return self.model(**{name: value for name, value in batch.items() if name in takes})
