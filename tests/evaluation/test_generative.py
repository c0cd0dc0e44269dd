"""Generative baselines: a tiny editing checkpoint on disk, run by the code that runs the full ones.

It is an InstructPix2Pix, since the pipelines of Qwen-Image-Edit and FLUX Kontext enlarge every picture to a megapixel.
"""

from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    StableDiffusionInstructPix2PixPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from components.evaluation.generative import GenerativeBaseline, GenerativeEditor, unavailable
from components.evaluation.tasks import PaperSettings


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("editor")
    words = ["<|startoftext|>", "<|endoftext|>", *(chr(code) + end for code in range(97, 123) for end in ("", "</w>"))]
    tokenizer = CLIPTokenizer({word: number for number, word in enumerate(words)}, [], model_max_length=77)
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = StableDiffusionInstructPix2PixPipeline(
            vae=AutoencoderKL(
                block_out_channels=(8, 8),
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
                norm_num_groups=4,
            ),
            text_encoder=CLIPTextModel(text),
            tokenizer=tokenizer,
            unet=UNet2DConditionModel(
                in_channels=8,
                block_out_channels=(8, 8),
                layers_per_block=1,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                cross_attention_dim=8,
                norm_num_groups=4,
                attention_head_dim=4,
            ),
            scheduler=DDIMScheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.save_pretrained(folder / "checkpoint")
    return folder / "checkpoint"


def baseline(model: Path | str, **changes: object) -> GenerativeBaseline:
    settings = {"name": "tiny", "model": str(model), "area": 48 * 32, "dtype": "float32", **changes}
    return GenerativeBaseline.model_validate({"arguments": {"num_inference_steps": 2}} | settings)


def test_a_checkpoint_on_disk_edits_every_photo_by_one_instruction(checkpoint: Path, photo: Tensor) -> None:
    settings = baseline(checkpoint)
    assert unavailable(settings) is None
    editor = GenerativeEditor(settings)
    edited = editor(photo)
    assert edited.shape == photo.shape
    assert edited.min() >= 0 and edited.max() <= 1
    assert torch.equal(edited, editor(photo))  # the same noise every time
    assert not torch.equal(edited, editor(photo.flip(-1)).flip(-1))


def test_the_working_size_has_the_area_the_proportions_and_the_multiple(checkpoint: Path) -> None:
    editor = GenerativeEditor.__new__(GenerativeEditor)
    editor.settings = baseline(checkpoint, area=1024 * 1024, multiple=32)
    height, width = editor.working_size(3000, 4000)
    assert height % 32 == width % 32 == 0
    assert height * width == pytest.approx(1024 * 1024, rel=0.05)
    assert width / height == pytest.approx(4 / 3, rel=0.05)


def test_what_is_not_here_is_unavailable_with_its_command(tmp_path: Path) -> None:
    gap = unavailable(baseline("somebody/a-model-nobody-fetched", revision="abc"))
    assert gap.command == ".venv/bin/hf download somebody/a-model-nobody-fetched --revision abc"
    assert unavailable(baseline(tmp_path)).missing == (str(tmp_path),)
    with pytest.raises(FileNotFoundError, match="not on this machine"):
        GenerativeEditor(baseline(tmp_path))


def test_a_pipeline_that_edits_nothing_is_refused(tmp_path: Path) -> None:
    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
    )
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path / "ddpm")
    with pytest.raises(ValueError, match="DDPMPipeline is no editing pipeline"):
        GenerativeEditor(baseline(tmp_path / "ddpm"))


def test_baselines_are_entries_of_the_configuration() -> None:
    entry = {"name": "kontext", "model": "black-forest-labs/FLUX.1-Kontext-dev", "arguments": {"guidance_scale": 2.5}}
    (read,) = PaperSettings.model_validate({"generative": [entry]}).generative
    assert read.arguments == {"guidance_scale": 2.5}
    with pytest.raises(ValueError, match="name"):
        PaperSettings.model_validate({"generative": [entry | {"name": "Not a name"}]})
