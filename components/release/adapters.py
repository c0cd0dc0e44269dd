"""Adapters between this project's folders and the release's: names, rank, alpha and PEFT's files.

Shape legend: r rank, I inputs, O outputs of the adapted layer; A is (r, I), B is (O, r), the update alpha / r * B A.
"""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from components import files
from components.models.lora import LoraSettings
from components.models.published import Configurations, build_critic, build_transformer
from components.release.layout import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    DIFFUSERS_WEIGHTS,
    RELEASED_LORA,
    RELEASED_TARGETS,
    ReleaseError,
    Shapes,
    require_same,
)

log = logging.getLogger(__name__)

Module = Literal["artist", "critic"]
_PREFIX = "base_model.model."
_TENSOR = re.compile(r"(?P<layer>.+)\.lora_(?P<part>[AB])(?:\.default)?\.weight")
_OLD_CRITIC = (("visual.", "model.visual."), ("model.layers.", "model.language_model.layers."))
"""Names of transformers before 4.52, and since."""
_PLAIN = {"bias": "none", "use_dora": False, "use_rslora": False, "modules_to_save": None, "fan_in_fan_out": False}
"""Settings of PEFT that change what tensors mean, at the values that are understood here."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: A (r, I) and B (O, r) by the layer's name in the base model, and how strongly they count."""

    down: dict[str, Tensor]
    up: dict[str, Tensor]
    lora: LoraSettings

    @property
    def layers(self) -> list[str]:
        """Names of the adapted layers."""
        return sorted(self.down)

    def tensors(self, prefix: str = _PREFIX) -> dict[str, Tensor]:
        """All tensors as PEFT names them in a file."""
        named = {}
        for layer in self.layers:
            named[f"{prefix}{layer}.lora_A.weight"] = self.down[layer].contiguous()
            named[f"{prefix}{layer}.lora_B.weight"] = self.up[layer].contiguous()
        return named

    def with_size(self, lora: LoraSettings) -> "Adapter":
        """The same update at another rank and alpha: B is scaled, and both are padded with zeros.

        Raises:
            ReleaseError: the rank would have to shrink, which loses something.
        """
        if self.lora == lora:
            return self
        if self.lora.rank > lora.rank:
            raise ReleaseError(
                f"the adapter has rank {self.lora.rank}, the release's loader reads rank {lora.rank}: "
                f"train with lora.rank <= {lora.rank}"
            )
        scale = (self.lora.alpha / self.lora.rank) / (lora.alpha / lora.rank)
        missing = lora.rank - self.lora.rank
        down = {name: torch.nn.functional.pad(tensor, (0, 0, 0, missing)) for name, tensor in self.down.items()}
        up = {name: torch.nn.functional.pad(tensor * scale, (0, missing)) for name, tensor in self.up.items()}
        return Adapter(down, up, lora)


def read_adapter(folder: Path, module: Module, lora: LoraSettings | None = None) -> Adapter:
    """Read a PEFT adapter of this project, of the release, or in diffusers' file.

    Args:
        folder: with `adapter_model.safetensors` and its configuration, or with `pytorch_lora_weights.safetensors`.
        lora: rank and alpha, where they are known without the configuration.

    Raises:
        ReleaseError: files are missing, must be unpickled, or hold something else than plain LoRA layers.
    """
    weights = next((folder / name for name in (ADAPTER_WEIGHTS, DIFFUSERS_WEIGHTS) if (folder / name).is_file()), None)
    if weights is None:
        found = ", ".join(sorted(path.name for path in folder.glob("*"))) if folder.is_dir() else "no such folder"
        raise ReleaseError(f"{folder}: expected {ADAPTER_WEIGHTS}, found {found or 'nothing'}; pickles are not read")
    try:
        tensors = load_file(weights)
    except SafetensorError as error:
        raise ReleaseError(f"{weights}: not readable as safetensors: {error}") from error
    down, up = _by_layer(tensors, module, weights)
    ranks = {tensor.shape[0] for tensor in down.values()} | {tensor.shape[1] for tensor in up.values()}
    if len(ranks) != 1:
        raise ReleaseError(f"{weights}: expected one rank in all layers, found {sorted(ranks)}")
    stated = lora or _stated_size(folder / ADAPTER_CONFIG)
    if ranks != {stated.rank}:
        raise ReleaseError(f"{weights}: its tensors have rank {ranks.pop()}, expected {stated.rank}")
    return Adapter(down, up, stated)


def read_released_artist_adapter(folder: Path) -> Adapter:
    """Read `dit_lora` as the release's loader does: with rank 32 and alpha 64, whatever its configuration says."""
    adapter = read_adapter(folder, "artist", RELEASED_LORA)
    path = folder / ADAPTER_CONFIG
    if path.is_file() and (stated := _stated_size(path)) != RELEASED_LORA:
        log.warning(
            "%s says rank %d and alpha %d; taken are %d and %d, as the release's loader does",
            path,
            stated.rank,
            stated.alpha,
            RELEASED_LORA.rank,
            RELEASED_LORA.alpha,
        )
    return adapter


def write_adapter(adapter: Adapter, out: Path, targets: list[str] | None = None) -> None:
    """Write PEFT's two files, with the settings only that every PEFT since 0.10 knows.

    Args:
        targets: `target_modules`; by default the exact names of the adapted layers.
    """
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": adapter.lora.rank,
        "lora_alpha": adapter.lora.alpha,
        "lora_dropout": 0.0,
        "init_lora_weights": "gaussian",
        "target_modules": targets or adapter.layers,
        "layers_to_transform": None,
        "layers_pattern": None,
        "rank_pattern": {},
        "alpha_pattern": {},
        **_PLAIN,
    }
    out.mkdir(parents=True, exist_ok=True)
    with files.replacing(out / ADAPTER_WEIGHTS) as temporary:
        save_file(adapter.tensors(), temporary, metadata={"format": "pt"})
    files.write_text(out / ADAPTER_CONFIG, json.dumps(config, indent=2) + "\n")


def write_diffusers_adapter(adapter: Adapter, out: Path) -> None:
    """Write the one file that diffusers' `load_lora_weights` reads, with rank and alpha in its metadata."""
    metadata = {
        "transformer.r": adapter.lora.rank,
        "transformer.lora_alpha": adapter.lora.alpha,
        "transformer.target_modules": adapter.layers,
    }
    out.mkdir(parents=True, exist_ok=True)
    with files.replacing(out / DIFFUSERS_WEIGHTS) as temporary:
        text = json.dumps(metadata, sort_keys=True)
        save_file(adapter.tensors("transformer."), temporary, metadata={"format": "pt", "lora_adapter_metadata": text})


def export_artist_adapter(source: Path, out: Path, configurations: Configurations, diffusers: bool = False) -> None:
    """Write a trained adapter of the Artist as the release's `dit_lora`.

    Raises:
        ReleaseError: it is not of this model, or of a higher rank than the release's.
    """
    adapter = read_adapter(source, "artist")
    _require_layers(adapter, expected_artist_layers(configurations), source)
    released = adapter.with_size(RELEASED_LORA)
    write_adapter(released, out, list(RELEASED_TARGETS))
    if diffusers:
        write_diffusers_adapter(released, out)


def export_critic_adapter(source: Path, out: Path, configurations: Configurations) -> None:
    """Write a trained adapter of the Critic as the release's `vlm_lora`.

    Raises:
        ReleaseError: it is not of this model.
    """
    adapter = read_adapter(source, "critic")
    _require_known(adapter, build_shapes("critic", configurations), source)
    write_adapter(adapter, out)


def import_artist_adapter(source: Path, out: Path, configurations: Configurations) -> None:
    """Turn the release's `dit_lora` into an adapter that `Artist.load` takes."""
    adapter = read_released_artist_adapter(source)
    _require_layers(adapter, expected_artist_layers(configurations), source)
    write_adapter(adapter, out)


def import_critic_adapter(source: Path, out: Path, configurations: Configurations) -> None:
    """Turn the release's `vlm_lora` into an adapter that `Critic.load` takes; names of older versions are renewed."""
    adapter = read_adapter(source, "critic")
    _require_known(adapter, build_shapes("critic", configurations), source)
    write_adapter(adapter, out)


def build_shapes(module: Module, configurations: Configurations) -> Shapes:
    """Names and shapes of all tensors of a base model."""
    with torch.device("meta"):
        model = build_transformer(configurations) if module == "artist" else build_critic(configurations)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def expected_artist_layers(configurations: Configurations) -> Shapes:
    """Layers of the transformer that carry an adapter in the release, with the shapes (O, I) of their weights."""
    targets = tuple(f".{target}.weight" for target in RELEASED_TARGETS)
    shapes = build_shapes("artist", configurations)
    return {name.removesuffix(".weight"): shape for name, shape in shapes.items() if name.endswith(targets)}


def _by_layer(
    tensors: Mapping[str, Tensor], module: Module, source: Path
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A and B by layer, whatever prefix the file's names have."""
    parts: dict[str, dict[str, Tensor]] = {"A": {}, "B": {}}
    for name, tensor in tensors.items():
        match = _TENSOR.fullmatch(name)
        if match is None:
            raise ReleaseError(f"{source}: expected tensors of LoRA layers only, found {name}")
        layer = match["layer"].removeprefix(_PREFIX)
        if module == "artist":
            layer = layer.removeprefix("transformer.")
        else:
            layer = next((new + layer.removeprefix(old) for old, new in _OLD_CRITIC if layer.startswith(old)), layer)
        parts[match["part"]][layer] = tensor
    lone = parts["A"].keys() ^ parts["B"].keys()
    if lone or not parts["A"]:
        raise ReleaseError(f"{source}: expected A and B of every layer, found one of {sorted(lone)[:3] or 'none'}")
    return parts["A"], parts["B"]


def _stated_size(path: Path) -> LoraSettings:
    """Rank and alpha in PEFT's configuration, after a look at what else it says."""
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        size = LoraSettings(rank=config["r"], alpha=config["lora_alpha"])
    except (OSError, KeyError, ValueError) as error:
        raise ReleaseError(f"{path}: expected PEFT's configuration with r and lora_alpha: {error}") from error
    odd = {name: config[name] for name, plain in _PLAIN.items() if config.get(name, plain) not in (plain, [])}
    odd |= {name: config[name] for name in ("rank_pattern", "alpha_pattern") if config.get(name)}
    if odd:
        raise ReleaseError(f"{path}: expected a plain LoRA, found {odd}")
    return size


def _require_layers(adapter: Adapter, expected: Shapes, source: Path) -> None:
    found = {name: (adapter.up[name].shape[0], adapter.down[name].shape[1]) for name in adapter.layers}
    require_same(found, expected, str(source))


def _require_known(adapter: Adapter, shapes: Shapes, source: Path) -> None:
    """Every adapted layer is one of the model's, and fits."""
    known = {name.removesuffix(".weight"): shape for name, shape in shapes.items()}
    _require_layers(adapter, {name: known[name] for name in adapter.layers if name in known}, source)
