"""Full-reference errors between an edited photo and the original: pixels, structure, perception, colour, photometry.

Every measure is a standard implementation where one exists (scikit-image for PSNR and SSIM, the `lpips` package with
its published linear heads for LPIPS); CIEDE2000 and the photometric attributes are those of `components.photometry`.
"""

from pathlib import Path

import lpips
import numpy as np
import torch
from safetensors.torch import load_file
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torch.nn import functional

from components.photometry.attributes import difference
from components.photometry.colour import delta_e_2000, srgb_to_lab
from components.photometry.operations import TONE

LPIPS_FILE = "lpips_alexnet_fp16.safetensors"
"""Name of the backbone's weights in the folder of the base models."""
LPIPS_MIN_SIDE = 64
"""Pixels: smaller pictures vanish in the pooling of AlexNet and are enlarged to this short side first."""

LOWER_IS_BETTER: dict[str, bool] = {
    "ciede2000": True,
    "lpips": True,
    "psnr": False,
    "ssim": False,
    **{f"{name}_error": True for name in TONE},
}
"""The measures of a case in the order of the tables, and which way is better."""

UNITS: dict[str, str] = {
    "ciede2000": "ΔE00",
    "lpips": "",
    "psnr": "dB",
    "ssim": "",
    "exposure_error": "EV",
    "contrast_error": "log2",
    "saturation_error": "log2",
    "temperature_error": "mired",
}

_PSNR_CAP = 100.0  # dB; two equal pictures, whose PSNR is infinite, count as this


def ciede2000(picture: Tensor, reference: Tensor) -> float:
    """Mean CIEDE2000 colour difference of two (3, H, W) sRGB pictures in [0, 1]; 0 for equal ones."""
    return float(delta_e_2000(srgb_to_lab(picture), srgb_to_lab(reference)).mean())


def psnr(picture: Tensor, reference: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of two (3, H, W) pictures in [0, 1], at most 100."""
    if torch.equal(picture, reference):
        return _PSNR_CAP
    return min(_PSNR_CAP, float(peak_signal_noise_ratio(_array(reference), _array(picture), data_range=1.0)))


def ssim(picture: Tensor, reference: Tensor) -> float:
    """Mean structural similarity of two (3, H, W) pictures in [0, 1], each side at least 11 pixels.

    Gaussian windows of sigma 1.5 as in Wang et al. (2004), averaged over the three channels.
    """
    return float(
        structural_similarity(
            _array(reference),
            _array(picture),
            data_range=1.0,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


class Lpips:
    """LPIPS v0.1 with the AlexNet backbone (Zhang et al. 2018), loaded from a file: nothing is downloaded.

    Args:
        weights: safetensors file with the convolutions of AlexNet as `lpips.LPIPS(net="alex").net` names them.

    Raises:
        FileNotFoundError: there is no such file.
        RuntimeError: the file holds other tensors.
    """

    def __init__(self, weights: Path, device: torch.device | str = "cpu"):
        if not Path(weights).is_file():
            raise FileNotFoundError(f"{weights}: expected the LPIPS backbone; run `dvc pull`")
        with torch.random.fork_rng():  # the constructor draws initial weights, replaced below
            model = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        model.net.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()})
        self.model = model.eval().requires_grad_(False).to(device)
        self.device = device

    def __call__(self, pictures: Tensor, references: Tensor) -> Tensor:
        """Distances (B,) of pictures (B, 3, H, W) in [0, 1]; differentiable in the pictures."""
        short_side = min(pictures.shape[-2:])
        if short_side < LPIPS_MIN_SIDE:
            size = [round(side * LPIPS_MIN_SIDE / short_side) for side in pictures.shape[-2:]]
            pictures, references = (
                functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
                for x in (pictures, references)
            )
        return self.model(pictures.to(self.device), references.to(self.device), normalize=True).flatten()


def photometric_errors(picture: Tensor, reference: Tensor) -> dict[str, float]:
    """Absolute deviation of each measured attribute: exposure in EV, contrast and saturation in log2, mired."""
    return {f"{name}_error": abs(float(value)) for name, value in difference(reference, picture).items()}


def measure_case(picture: Tensor, reference: Tensor, lpips_distance: Lpips) -> dict[str, float]:
    """All measures of `LOWER_IS_BETTER` for two (3, H, W) sRGB pictures in [0, 1].

    Raises:
        ValueError: the shapes differ, or a side is shorter than the 11 pixels that SSIM needs.
    """
    if picture.shape != reference.shape or min(picture.shape[-2:]) < 11:
        raise ValueError(
            f"expected two pictures of the same shape with sides of at least 11 pixels, found {tuple(picture.shape)} "
            f"and {tuple(reference.shape)}"
        )
    with torch.no_grad():
        return {
            "ciede2000": ciede2000(picture, reference),
            "lpips": float(lpips_distance(picture[None], reference[None])),
            "psnr": psnr(picture, reference),
            "ssim": ssim(picture, reference),
            **photometric_errors(picture, reference),
        }


def to_bytes(picture: Tensor) -> np.ndarray:
    """(H, W, 3) uint8 of a picture (3, H, W) in [0, 1]."""
    return (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()


def _array(picture: Tensor) -> np.ndarray:
    return picture.detach().cpu().permute(1, 2, 0).double().numpy()
