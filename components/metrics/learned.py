"""Learned quality measures with published weights: DISTS, MUSIQ and NIMA through pyiqa, FID, and CLIP similarity.

None is approximated: where the weights of a measure are not on this machine, it is unavailable and says which command
fetches them (`smartphotocrafter fetch measures`). Weights are read without unpickling anything but tensors.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from huggingface_hub import try_to_load_from_cache
from PIL import Image
from torch import Tensor

from components.metrics.full_reference import LPIPS_FILE, Lpips, to_bytes
from components.strict import Strict

CLIP_MODEL = "openai/clip-vit-base-patch32"
"""Of CLIP similarity: the model of CLIPScore (Hessel et al. 2021), by its name on the Hugging Face hub."""
_NIMA_BACKBONE = "timm/inception_resnet_v2.tf_in1k"
_INCEPTION_SIDE = 299


class Unavailable(Strict):
    """A measure, or a method, that could not be used here."""

    name: str
    missing: tuple[str, ...]
    """What is not on this machine."""
    command: str
    """Brings it here."""


class CaseMeasure(Protocol):
    """Measures one picture (3, H, W) in [0, 1], beside its reference, which some ignore."""

    def __call__(self, picture: Tensor, reference: Tensor) -> float: ...


class Learned(NamedTuple):
    """What is known of a learned measure before it is loaded."""

    title: str
    lower_is_better: bool
    weights: Callable[[], Mapping[str, Path | None]]
    """The files it needs by a name to tell people; None, or a path without a file, where one is missing."""


def unavailable(name: str) -> Unavailable | None:
    """None if every file that the measure ``name`` (a key of `LEARNED`) needs is on this machine."""
    files = LEARNED[name].weights()
    missing = tuple(what for what, path in files.items() if path is None or not path.is_file())
    if not missing:
        return None
    return Unavailable(name=name, missing=missing, command=f".venv/bin/smartphotocrafter fetch measures {name}")


def load_case_measure(name: str, base: Path, device: str = "cpu") -> CaseMeasure:
    """The measure ``name``: "lpips", "clip", or any key of pyiqa with a score a picture.

    Args:
        base: folder of the base models, which holds the backbone of LPIPS.
    """
    if name == "lpips":
        distance = Lpips(Path(base) / LPIPS_FILE, device)
        return lambda picture, reference: float(distance(picture[None], reference[None]))
    if name == "clip":
        return ClipSimilarity(CLIP_MODEL, device)
    return PyiqaMeasure(name, device)


class PyiqaMeasure:
    """A measure of pyiqa with its published settings, with or without a reference.

    Args:
        name: pyiqa's name, such as "dists", "musiq" (KonIQ-10k) or "nima" (AVA).
    """

    def __init__(self, name: str, device: str = "cpu"):
        with tensors_only():
            import pyiqa

            self.metric = pyiqa.create_metric(name, device=torch.device(device))
        self.full_reference = self.metric.metric_mode == "FR"

    @torch.no_grad()
    def __call__(self, picture: Tensor, reference: Tensor) -> float:
        pictures = (picture[None], reference[None]) if self.full_reference else (picture[None],)
        return float(self.metric(*pictures))


class ClipSimilarity:
    """Cosine of the CLIP image embeddings of picture and reference, from -1 to 1 (Radford et al. 2021).

    Args:
        model: a directory with a CLIP model and its image processor as transformers saves them, or a name on the hub
            that has been fetched before.
    """

    def __init__(self, model: str | Path, device: str = "cpu"):
        from transformers import CLIPImageProcessor, CLIPModel

        self.processor = CLIPImageProcessor.from_pretrained(model, local_files_only=True)
        self.model = CLIPModel.from_pretrained(model, local_files_only=True, use_safetensors=True)
        self.model.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def __call__(self, picture: Tensor, reference: Tensor) -> float:
        images = [Image.fromarray(to_bytes(x)) for x in (picture, reference)]
        pixels = self.processor(images=images, return_tensors="pt")["pixel_values"].to(self.model.device)
        states = self.model.vision_model(pixel_values=pixels).pooler_output
        ours, theirs = self.model.visual_projection(states).double()
        return float(torch.nn.functional.cosine_similarity(ours, theirs, dim=0))


class InceptionFeatures:
    """(2048,) features of a picture for FID, resized as Clean-FID does (Parmar et al. 2022): bicubic with antialiasing.

    The network is the one of the original FID (Heusel et al. 2017) as pyiqa ships it.
    """

    def __init__(self, device: str = "cpu"):
        with tensors_only():
            from pyiqa.archs.inception import InceptionV3

            self.model = InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[2048]])
        self.model.eval().requires_grad_(False).to(device)
        self.device = device

    @torch.no_grad()
    def __call__(self, picture: Tensor) -> np.ndarray:
        side = (_INCEPTION_SIDE, _INCEPTION_SIDE)
        channels = [
            np.asarray(Image.fromarray(channel.astype(np.float32)).resize(side, Image.Resampling.BICUBIC))
            for channel in to_bytes(picture).transpose(2, 0, 1)
        ]
        batch = (torch.from_numpy(np.stack(channels)).clamp(0, 255)[None] - 128) / 128
        (features,) = self.model(batch.to(self.device), False, False)
        return features.flatten().double().cpu().numpy()


def frechet_distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Fréchet distance of two Gaussians fitted to features (N, D) and (M, D): |m - m'|^2 + tr(C + C' - 2 (C C')^1/2).

    Dowson and Landau (1982). The trace of the root is the sum of the singular values of X X'^T, X and X' being the
    centred features over the root of their counts minus one, which takes the size of the sets and not of D squared.

    Raises:
        ValueError: a set has fewer than two rows, of which there is no covariance.
    """
    if min(len(ours), len(theirs)) < 2 or ours.shape[1:] != theirs.shape[1:]:
        raise ValueError(f"expected two sets of at least 2 features alike, found {ours.shape} and {theirs.shape}")
    centred = [(x - x.mean(axis=0)) / np.sqrt(len(x) - 1) for x in (ours, theirs)]
    root = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    means = np.sum((ours.mean(axis=0) - theirs.mean(axis=0)) ** 2)
    return float(max(0.0, means + sum(np.sum(x**2) for x in centred) - 2 * root))


@contextlib.contextmanager
def tensors_only() -> Iterator[None]:
    """Let every `torch.load` within refuse to unpickle anything but tensors, whatever its caller asks for."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _pyiqa_files(module: str, urls: Callable[[Any], Sequence[str]]) -> Callable[[], Mapping[str, Path | None]]:
    """The files that a module of pyiqa would download, where it keeps them."""

    def files() -> Mapping[str, Path | None]:
        import importlib

        from pyiqa.utils import download_util

        names = [url.rsplit("/", 1)[1] for url in urls(importlib.import_module(f"pyiqa.archs.{module}"))]
        return {name: Path(download_util.DEFAULT_CACHE_DIR) / name for name in names}

    return files


def _hub_file(repository: str, name: str) -> Mapping[str, Path | None]:
    found = try_to_load_from_cache(repository, name)
    return {f"{repository}/{name}": Path(found) if isinstance(found, str) else None}


def _dists() -> Mapping[str, Path | None]:
    from torchvision.models import VGG16_Weights

    backbone = VGG16_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1]
    own = _pyiqa_files("dists_arch", lambda module: [module.default_model_urls["url"]])()
    return {backbone: Path(torch.hub.get_dir()) / "checkpoints" / backbone, **own}


def _nima() -> Mapping[str, Path | None]:
    own = _pyiqa_files("nima_arch", lambda module: [module.default_model_urls["inception_resnet_v2-ava"]])()
    return {**_hub_file(_NIMA_BACKBONE, "model.safetensors"), **own}


LEARNED: dict[str, Learned] = {
    "musiq": Learned(
        "MUSIQ", False, _pyiqa_files("musiq_arch", lambda module: [module.default_model_urls["koniq10k"]])
    ),
    "nima": Learned("NIMA", False, _nima),
    "dists": Learned("DISTS", True, _dists),
    "clip": Learned("CLIP similarity", False, lambda: _hub_file(CLIP_MODEL, "model.safetensors")),
    "fid": Learned("FID", True, _pyiqa_files("inception", lambda module: [module.FID_WEIGHTS_URL])),
}
"""Measures that need published weights, by name. FID is of sets of pictures, the others of single ones."""
