"""Configurations of small models in the real classes, for plans that can be checked by running them."""

from components.models.published import Configurations

RANK = 4


def small(depth: int = 2, heads: int = 2, text_depth: int = 2, text_width: int = 64) -> Configurations:
    """A transformer of 32 x `heads` channels, and a language model of `text_width`, by default a few thousand each."""
    return Configurations(
        critic={
            "model_type": "qwen2_5_vl",
            "tie_word_embeddings": False,
            "image_token_id": 5,
            "video_token_id": 6,
            "vision_start_token_id": 7,
            "vision_end_token_id": 8,
            "text_config": {
                "vocab_size": 512,
                "hidden_size": text_width,
                "intermediate_size": 2 * text_width,
                "num_hidden_layers": text_depth,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": 4096,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 10000.0,
                    "mrope_section": [text_width // 32, text_width // 32, text_width // 16],
                },
                "tie_word_embeddings": False,
            },
            "vision_config": {
                "depth": 3,
                "hidden_size": 48,
                "intermediate_size": 80,
                "num_heads": 2,
                "out_hidden_size": text_width,
                "patch_size": 14,
                "spatial_merge_size": 2,
                "window_size": 112,
                "fullatt_block_indexes": [1],
            },
        },
        transformer={
            "patch_size": 2,
            "in_channels": 32,
            "out_channels": 8,
            "num_layers": depth,
            "attention_head_dim": 32,
            "num_attention_heads": heads,
            "joint_attention_dim": text_width,
            "axes_dims_rope": [8, 12, 12],
        },
        vae={
            "base_dim": 8,
            "z_dim": 8,
            "dim_mult": [1, 2, 2],
            "num_res_blocks": 1,
            "temperal_downsample": [False, False],
            "latents_mean": [0.0] * 8,
            "latents_std": [1.0] * 8,
        },
        scheduler={
            "base_image_seq_len": 256,
            "base_shift": 0.5,
            "max_image_seq_len": 8192,
            "max_shift": 0.9,
            "shift_terminal": 0.02,
            "use_dynamic_shifting": True,
        },
        area=64 * 64,
    )
