"""Generative editing models as baselines: any diffusers pipeline that takes a picture and an instruction.

Qwen-Image-Edit, FLUX Kontext, InstructPix2Pix and their like are entries of the configuration and run through the same
code: every photo gets the same fixed instruction, since nobody types one for ours either.
"""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from PIL import Image
from pydantic import Field
from torch import Tensor

from components.imaging.photo import resize
from components.metrics.full_reference import to_bytes
from components.metrics.learned import Unavailable
from components.strict import Strict

INSTRUCTION = (
    "Improve this photo: correct exposure, contrast, saturation and white balance, and remove blur, noise and haze. "
    "Keep the content and the composition exactly as they are."
)


class GenerativeBaseline(Strict):
    """One editing model to compare with."""

    name: str = Field(pattern="^[a-z][a-z0-9_]*$", description="In the tables.")
    model: str = Field(description="A directory that diffusers saved, or a name on the Hugging Face hub.")
    revision: str | None = Field(
        default=None, description="Of a model on the hub: a commit, so that it stays the same."
    )
    instruction: str = Field(default=INSTRUCTION, min_length=1, description="The same for every photo.")
    area: int = Field(default=1024 * 1024, ge=64, description="Pixels of the picture that the model works on.")
    multiple: int = Field(default=16, ge=1, description="Sides are multiples of this many pixels.")
    arguments: dict[str, float | int | bool | str] = Field(
        default={}, description="Further arguments of the pipeline, such as num_inference_steps or true_cfg_scale."
    )
    dtype: str = Field(default="bfloat16", pattern="^(float32|float16|bfloat16)$", description="Of the weights.")


def unavailable(settings: GenerativeBaseline) -> Unavailable | None:
    """None if the model is on this machine."""
    if _folder(settings) is not None:
        return None
    revision = f" --revision {settings.revision}" if settings.revision else ""
    return Unavailable(
        name=settings.name, missing=(settings.model,), command=f".venv/bin/hf download {settings.model}{revision}"
    )


class GenerativeEditor:
    """Edits pictures with the pipeline of one baseline.

    Args:
        seed: of the noise of every picture.

    Raises:
        FileNotFoundError: the model is not on this machine.
        ValueError: its pipeline takes no picture or no instruction.
    """

    def __init__(self, settings: GenerativeBaseline, device: str = "cpu", seed: int = 0):
        folder = _folder(settings)
        if folder is None:
            raise FileNotFoundError(f"{settings.name}: {settings.model} is not on this machine")
        self.pipeline = DiffusionPipeline.from_pretrained(
            folder, torch_dtype=getattr(torch, settings.dtype), use_safetensors=True, local_files_only=True
        ).to(device)
        self.pipeline.set_progress_bar_config(disable=True)
        tell_picture_tokens(getattr(self.pipeline, "text_encoder", None))
        self.parameters = inspect.signature(self.pipeline.__call__).parameters
        if missing := {"image", "prompt"} - set(self.parameters):
            kind = type(self.pipeline).__name__
            raise ValueError(f"{settings.name}: {kind} is no editing pipeline, it does not take {sorted(missing)}")
        self.settings, self.seed = settings, seed

    @torch.no_grad()
    def __call__(self, picture: Tensor) -> Tensor:
        """The edited picture, (3, H, W) in [0, 1] like ``picture``."""
        size = self.working_size(*picture.shape[-2:])
        options = {"height": size[0], "width": size[1]} if {"height", "width"} <= set(self.parameters) else {}
        result = self.pipeline(
            image=Image.fromarray(to_bytes(resize(picture, size))),
            prompt=self.settings.instruction,
            generator=torch.Generator().manual_seed(self.seed),
            output_type="pil",
            **options,
            **self.settings.arguments,
        )
        edited = np.asarray(result.images[0].convert("RGB"), dtype=np.float32) / 255
        return resize(torch.from_numpy(edited).permute(2, 0, 1), (picture.shape[-2], picture.shape[-1]))

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width with about the pixels of the settings and the proportions of the photo."""
        scale, step = (self.settings.area / (height * width)) ** 0.5, self.settings.multiple
        return tuple(max(step, round(side * scale / step) * step) for side in (height, width))


def tell_picture_tokens(text_encoder: Any) -> None:
    """Have a Qwen-VL that encodes a pipeline's instructions be told which tokens are the picture's.

    Diffusers leaves them (`mm_token_type_ids`) out, and transformers 5 then counts the picture's tokens as text, in one
    dimension instead of three. Other encoders are left as they are.
    """
    config = getattr(text_encoder, "config", None)
    kinds = [getattr(config, f"{kind}_token_id", None) for kind in ("image", "video")]
    if not hasattr(getattr(text_encoder, "model", None), "get_rope_index") or None in kinds:
        return

    def told(_: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        tokens = keywords.get("input_ids")
        if tokens is None or keywords.get("mm_token_type_ids") is not None:
            return arguments, keywords
        types = sum((tokens == token).long() * number for number, token in enumerate(kinds, start=1))
        return arguments, {**keywords, "mm_token_type_ids": types}

    text_encoder.register_forward_pre_hook(told, with_kwargs=True)


def _folder(settings: GenerativeBaseline) -> Path | None:
    """Where the model lies, if it is here."""
    if (Path(settings.model) / "model_index.json").is_file():
        return Path(settings.model)
    try:
        return Path(snapshot_download(settings.model, revision=settings.revision, local_files_only=True))
    except (LocalEntryNotFoundError, HfHubHTTPError, ValueError):  # ValueError: a path that is no name on the hub
        return None
