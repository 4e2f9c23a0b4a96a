"""Published sizes of NFNet; counts are those of the tower, without a classifier."""


def variant(number: int, image_size: int, dropout: float) -> dict:
    """F0 to F6 differ in depth, in the size of training images and in dropout."""
    depths = [depth * (number + 1) for depth in (1, 2, 6, 3)]
    return {"depths": depths, "image_size": image_size, "classifier_dropout": dropout}


NFNET = "Brock et al. 2021, arXiv:2102.06171"

PRESETS = {
    "nfnet-tiny": {
        "config": {
            **{"depths": [1, 2, 1, 1], "widths": [32, 32, 64, 64], "stem_widths": [8, 8, 16, 16]},
            **{"group_size": 8, "hidden_size": 64, "image_size": 32, "path_dropout": 0.0},
            "classifier_dropout": 0.0,
        },
        "parameters": 55_469,
        "source": "for tests and first steps",
    },
    "nfnet-f0": {"config": variant(0, 192, 0.2), "parameters": 68_416_284, "source": NFNET},
    "nfnet-f1": {"config": variant(1, 224, 0.3), "parameters": 129_561_256, "source": NFNET},
    "nfnet-f2": {"config": variant(2, 256, 0.4), "parameters": 190_706_228, "source": NFNET},
    "nfnet-f3": {"config": variant(3, 320, 0.4), "parameters": 251_851_200, "source": NFNET},
    "nfnet-f4": {"config": variant(4, 384, 0.5), "parameters": 312_996_172, "source": NFNET},
    "nfnet-f5": {"config": variant(5, 416, 0.5), "parameters": 374_141_144, "source": NFNET},
    "nfnet-f6": {
        "config": variant(6, 448, 0.5),
        "parameters": 435_286_116,
        "source": f"{NFNET}; Flamingo's tower, which reads images of 320 x 320",
    },
}
