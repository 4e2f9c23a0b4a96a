"""FT-Transformer by depth and TabTransformer; counts are those of the classifier with two classes.

How large a model is depends on its table: FT-Transformer's presets have eight numeric columns (California housing),
TabTransformer's the fourteen of Adult, whose eight columns of categories have one more for "missing". Other columns
come from a fitted processor.
"""

RTDL = "Gorishniy et al. 2021, arXiv:2106.11959; the authors' defaults"


def ft(layers: int, hidden: int, attention_dropout: float, mlp_dropout: float) -> dict:
    """One depth of the authors' grid; the ReGLU has 4/3 of the width, rounded down."""
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": hidden * 4 // 3,
        "attention_dropout": attention_dropout,
        "mlp_dropout": mlp_dropout,
    }


TAB = {"form": "tab", "attention_dropout": 0.0, "mlp_dropout": 0.0}

PRESETS = {
    "tabular-tiny": {
        "config": {
            **ft(2, 64, 0.0, 0.0),
            "intermediate_size": 96,
            "num_attention_heads": 4,
            "num_numeric_columns": 5,
            "category_sizes": [4, 3, 6],
        },
        "parameters": 73_346,
        "source": "for tests and first steps",
    },
    "tab-transformer-tiny": {
        "config": {
            **TAB,
            **{"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4},
            **{"num_numeric_columns": 5, "category_sizes": [4, 3, 6], "identifier_size": 8},
        },
        "parameters": 535_391,
        "source": "for tests and first steps",
    },
    "ft-transformer-1": {"config": ft(1, 96, 0.1, 0.0), "parameters": 77_442, "source": RTDL},
    "ft-transformer-2": {"config": ft(2, 128, 0.15, 0.05), "parameters": 268_074, "source": RTDL},
    "ft-transformer-3": {"config": ft(3, 192, 0.2, 0.1), "parameters": 896_642, "source": RTDL},
    "ft-transformer-4": {"config": ft(4, 256, 0.25, 0.15), "parameters": 2_114_986, "source": RTDL},
    "ft-transformer-5": {"config": ft(5, 320, 0.3, 0.2), "parameters": 4_120_102, "source": RTDL},
    "ft-transformer-6": {"config": ft(6, 384, 0.35, 0.25), "parameters": 7_115_138, "source": RTDL},
    "tab-transformer": {
        "config": {
            **TAB,
            **{"num_hidden_layers": 6, "hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 8},
            **{"num_numeric_columns": 6, "category_sizes": [9, 17, 8, 15, 7, 6, 3, 42], "identifier_size": 4},
        },
        "parameters": 905_620,
        "source": "Huang et al. 2020, arXiv:2012.06678; width, depth and heads are the paper's, the activation and "
        "the dropout are uncertain",
    },
}
