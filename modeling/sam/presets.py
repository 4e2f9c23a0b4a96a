"""Published sizes of SAM; counts leave out the fixed directions of positions, 256 numbers."""

LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
HUGE = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}

PRESETS = {
    "sam-tiny": {
        "config": {
            **{"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
            **{"image_size": 64, "patch_size": 8, "window_size": 3, "global_attn_indexes": [1]},
            **{"prompt_size": 32, "num_decoder_heads": 4, "decoder_intermediate_size": 64, "iou_head_size": 32},
            **{"mask_input_channels": 8, "num_clicks": 3, "num_refinements": 1},
        },
        "parameters": 136_614,
        "source": "for tests and first steps",
    },
    "sam-vit-base": {
        "config": {},
        "parameters": 93_735_472,
        "source": "Kirillov et al. 2023, arXiv:2304.02643: ViT-B",
    },
    "sam-vit-large": {
        "config": {**LARGE, "global_attn_indexes": [5, 11, 17, 23]},
        "parameters": 312_342_832,
        "source": "Kirillov et al. 2023, arXiv:2304.02643: ViT-L",
    },
    "sam-vit-huge": {
        "config": {**HUGE, "global_attn_indexes": [7, 15, 23, 31]},
        "parameters": 641_090_608,
        "source": "Kirillov et al. 2023, arXiv:2304.02643: ViT-H",
    },
}
