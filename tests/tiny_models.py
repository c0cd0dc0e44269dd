"""Untrained models of a few thousand parameters in the real classes and on-disk formats, for tests that need files."""

from pathlib import Path

import lpips
import torch
from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel
from safetensors.torch import save_file
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from components.models.artist import DESCRIPTION_FILE, Artist
from components.models.critic import Critic, LoraSettings
from components.models.package import Package, Provenance, write_package
from components.verdict.prompt import PROMPT, SYSTEM
from tools.base_models.critic import build_processor

WIDTH = 32


def write_base(base: Path, seed: int = 0) -> Path:
    """``base/critic`` and ``base/artist`` as `from_pretrained` directories."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        processor = build_processor(
            [PROMPT, SYSTEM, "system user assistant exposure contrast"], patch=14, pixels=(56 * 56, 112 * 112)
        )
        critic = _critic(processor)
        transformer = QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=32,
            out_channels=8,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            axes_dims_rope=(4, 6, 6),
        )
        with torch.no_grad():
            for parameter in transformer.transformer_blocks.parameters():
                parameter.mul_(4)  # or the output hardly depends on the photo and the words
        vae = AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=8,
            dim_mult=[1, 2, 2],
            num_res_blocks=1,
            temperal_downsample=[False, False],
            latents_mean=[0.0] * 8,
            latents_std=[1.0] * 8,
        )
    scheduler = FlowMatchEulerDiscreteScheduler(
        base_image_seq_len=256,
        base_shift=0.5,
        max_image_seq_len=8192,
        max_shift=0.9,
        shift_terminal=0.02,
        use_dynamic_shifting=True,
    )
    critic.save_pretrained(base / "critic")
    processor.save_pretrained(base / "critic")
    transformer.save_pretrained(base / "artist" / "transformer")
    vae.save_pretrained(base / "artist" / "vae")
    scheduler.save_pretrained(base / "artist" / "scheduler")
    (base / "artist" / DESCRIPTION_FILE).write_text('{"area": 1024}')
    return base


def write_lpips(path: Path) -> Path:
    """Random AlexNet convolutions under the keys and in the precision of the shipped LPIPS backbone."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    save_file({name: tensor.half().contiguous() for name, tensor in model.net.state_dict().items()}, path)
    return path


def write_adapters(base: Path, out: Path) -> tuple[Path, Path]:
    """Fresh LoRA adapters of both models in ``out/critic`` and ``out/artist``."""
    critic, artist = Critic.load(base / "critic"), Artist.load(base / "artist")
    for model, folder in ((critic, out / "critic"), (artist, out / "artist")):
        model.add_adapter(LoraSettings(rank=2, alpha=4))
        model.save_adapter(folder)
    return out / "critic", out / "artist"


def write_tiny_package(folder: Path, out: Path, evaluation: Path | None = None) -> Package:
    """A whole package at ``out``; ``folder`` takes the parts it is made from."""
    base = write_base(folder / "base")
    critic, artist = write_adapters(base, folder / "adapters")
    provenance = Provenance(data_revision="d" * 32, code_revision="c" * 40, pipeline_run="test")
    return write_package(out, base, critic, artist, provenance, "# A model for tests", evaluation)


def _critic(processor) -> Qwen2_5_VLForConditionalGeneration:
    ids = processor.tokenizer.convert_tokens_to_ids
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config={
                "vocab_size": len(processor.tokenizer),
                "hidden_size": WIDTH,
                "intermediate_size": 64,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "max_position_embeddings": 512,
                "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
                "tie_word_embeddings": True,
                "bos_token_id": None,
                "eos_token_id": ids("<|im_end|>"),
                "pad_token_id": ids("<|endoftext|>"),
            },
            vision_config={
                "depth": 1,
                "hidden_size": WIDTH,
                "intermediate_size": 64,
                "num_heads": 2,
                "out_hidden_size": WIDTH,
                "patch_size": 14,
                "spatial_merge_size": 2,
                "window_size": 56,
                "fullatt_block_indexes": [0],
            },
            image_token_id=ids("<|image_pad|>"),
            video_token_id=ids("<|video_pad|>"),
            vision_start_token_id=ids("<|vision_start|>"),
            vision_end_token_id=ids("<|vision_end|>"),
            tie_word_embeddings=True,
        )
    )
