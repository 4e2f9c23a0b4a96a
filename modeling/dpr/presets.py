"""Published sizes of DPR; counts are those of both encoders."""

BERT_BASE = {"model_type": "zoo_mlm"}
TINY = {
    "model_type": "zoo_mlm",
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}

PRESETS = {
    "dpr-tiny": {
        "config": {"question_config": TINY},
        "parameters": 331_520,
        "source": "for tests and first steps",
        "tokenizer": "wordpiece",
    },
    "dpr-base": {
        "config": {"question_config": BERT_BASE},
        "parameters": 217_783_296,
        "source": "Karpukhin et al. 2020, arXiv:2004.04906: two BERT-base encoders without poolers",
        "tokenizer": "wordpiece",
    },
}
