"""The files of the authors' release and of the models under it, and what must stand in them.

    dit.safetensors                    the Artist's transformer, one file, diffusers' names
    vlm/                               the Critic: weights, tokenizer and processor
    vae/diffusion_pytorch_model.safetensors
    dit_lora/, vlm_lora/               PEFT adapters
    dit_lora/pytorch_lora_weights.safetensors   the same adapter as diffusers' own loader wants it (optional)

Facts of the release's loader: the transformer's adapter is loaded into a LoRA of rank 32 and alpha 64 on the eight
attention projections whatever `dit_lora/adapter_config.json` says; the Critic's adapter is loaded as its
`vlm_lora/adapter_config.json` says; the transformer's file is recognised by the MD5 of its tensor names and shapes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import safe_open

from components.models.artist import LORA_TARGETS
from components.models.lora import LoraSettings

TRANSFORMER_FILE, CRITIC_FOLDER, VAE_FILE = "dit.safetensors", "vlm", "vae/diffusion_pytorch_model.safetensors"
ARTIST_ADAPTER, CRITIC_ADAPTER = "dit_lora", "vlm_lora"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
DIFFUSERS_WEIGHTS = "pytorch_lora_weights.safetensors"

RELEASED_LORA = LoraSettings(rank=32, alpha=64)
RELEASED_TARGETS = tuple(sorted(f"attn.{name}" for name in LORA_TARGETS))
RECOGNISED_TRANSFORMER = "0319a1cb19835fb510907dd3367c95ff"
"""Fingerprint of Qwen-Image-Edit-2509's transformer, in the model list of DiffSynth, which the release runs on."""

Shapes = dict[str, tuple[int, ...]]


class ReleaseError(ValueError):
    """A folder is not what it should be; the message says what was expected, what was found and what to do."""


def stored_shapes(files: Sequence[Path]) -> Shapes:
    """Names and shapes of the tensors in safetensors files, without reading the tensors."""
    shapes: Shapes = {}
    for path in files:
        with safe_open(path, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118 (it is no mapping)
                shapes[name] = tuple(stored.get_slice(name).get_shape())
    return shapes


def fingerprint(shapes: Mapping[str, Sequence[int]]) -> str:
    """The MD5 of tensor names and shapes by which the release's loader recognises a file."""
    names = [entry for name, shape in shapes.items() for entry in (f"{name}:{'_'.join(map(str, shape))}", name)]
    return hashlib.md5(",".join(sorted(names)).encode(), usedforsecurity=False).hexdigest()


def require_same(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], what: str) -> None:
    """Check that tensors have the expected names and shapes.

    Raises:
        ReleaseError: naming some of those that are missing, unknown or of another shape.
    """
    problems = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    problems += [f"{name} is unknown" for name in sorted(found.keys() - expected.keys())]
    problems += [
        f"{name} has shape {tuple(found[name])}, expected {tuple(expected[name])}"
        for name in sorted(expected.keys() & found.keys())
        if tuple(found[name]) != tuple(expected[name])
    ]
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise ReleaseError(f"{what}: {'; '.join(problems[:4])}{more}; is it of this model?")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model's folder.

    Raises:
        ReleaseError: there is none.
    """
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise ReleaseError(f"{folder}: expected weights as safetensors, found none")
    return found
