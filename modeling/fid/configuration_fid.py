"""Configuration of Fusion-in-Decoder."""

from huggingface_hub.dataclasses import strict

from ..seq2seq.configuration_seq2seq import ZooSeq2seqConfig


@strict
class ZooFidConfig(ZooSeq2seqConfig):
    """The fields of the encoder-decoder (seq2seq): passages need no others, since nothing counts them."""

    model_type = "zoo_fid"
