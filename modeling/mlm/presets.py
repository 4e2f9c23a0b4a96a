"""Published sizes of BERT and its descendants of one domain; counts are those of the encoder with its pooler."""


def size(layers: int, hidden: int, heads: int, vocab: int) -> dict:
    """The four numbers that make a size; the feed-forward network is four times as wide."""
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
        "vocab_size": vocab,
    }


BERT = "Devlin et al. 2018, arXiv:1810.04805"
BIOBERT = "Lee et al. 2019, arXiv:1901.08746"


def blockbert(blocks: int) -> dict:
    """BERT-base whose heads see a half or a third of a text, split 10:2 or 8:2:2 between shifts."""
    return {
        "config": {
            **size(12, 768, 12, 28996),
            **{"max_position_embeddings": 1024, "num_attention_blocks": blocks},
        },
        "parameters": 108_703_488,
        "source": "Qiu et al. 2019, arXiv:1911.02972; trained on 512 or 1024 tokens, its vocabulary is uncertain",
        "tokenizer": "wordpiece",
    }


PRESETS = {
    "mlm-tiny": {
        "config": {**size(2, 64, 4, 512), "max_position_embeddings": 512},
        "parameters": 169_920,
        "source": "for tests and first steps",
        "tokenizer": "wordpiece",
    },
    "bert-base-uncased": {
        "config": size(12, 768, 12, 30522),
        "parameters": 109_482_240,
        "source": BERT,
        "tokenizer": "wordpiece",
    },
    "bert-base-cased": {
        "config": size(12, 768, 12, 28996),
        "parameters": 108_310_272,
        "source": BERT,
        "tokenizer": "wordpiece",
    },
    "bert-large-uncased": {
        "config": size(24, 1024, 16, 30522),
        "parameters": 335_141_888,
        "source": BERT,
        "tokenizer": "wordpiece",
    },
    "bert-large-cased": {
        "config": size(24, 1024, 16, 28996),
        "parameters": 333_579_264,
        "source": BERT,
        "tokenizer": "wordpiece",
    },
    "biobert-base-v1.1": {
        "config": size(12, 768, 12, 28996),
        "parameters": 108_310_272,
        "source": BIOBERT,
        "tokenizer": "wordpiece",
    },
    "biobert-large-v1.1": {
        "config": size(24, 1024, 16, 58996),
        "parameters": 364_299_264,
        "source": f"{BIOBERT}; the vocabulary of the large model is uncertain",
        "tokenizer": "wordpiece",
    },
    "bio-clinicalbert": {
        "config": size(12, 768, 12, 28996),
        "parameters": 108_310_272,
        "source": "Alsentzer et al. 2019, arXiv:1904.03323; BioBERT trained on, with BERT's cased vocabulary",
        "tokenizer": "wordpiece",
    },
    "pubmedbert-base": {
        "config": size(12, 768, 12, 30522),
        "parameters": 109_482_240,
        "source": "Gu et al. 2020, arXiv:2007.15779; from scratch, a vocabulary of its own as large as BERT's",
        "tokenizer": "wordpiece",
    },
    "finbert": {
        "config": size(12, 768, 12, 30522),
        "parameters": 109_482_240,
        "source": "Araci 2019, arXiv:1908.10063; BERT trained on, classes of sentiment are num_labels=3",
        "tokenizer": "wordpiece",
    },
    "finbert-finvocab": {
        "config": size(12, 768, 12, 30873),
        "parameters": 109_751_808,
        "source": "Yang et al. 2020, arXiv:2006.08097; from scratch, the size of its vocabulary is uncertain",
        "tokenizer": "wordpiece",
    },
    "blockbert-base-n2": blockbert(2),
    "blockbert-base-n3": blockbert(3),
}
