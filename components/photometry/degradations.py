"""Restoration degradations with known parameters: motion blur, defocus, sensor noise, JPEG, haze and low light.

Light adds up in the scene and on the sensor, so blur, noise, haze and darkness all happen in linear light. Sizes are
fractions of the picture's short side, so that an operation means the same at every resolution. Random parts come from
the given generator only. Pictures are float32 in main memory (`components.photometry.fused`).
"""

import math

import imagecodecs
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from components.photometry import fused
from components.photometry.attributes import MID_GREY, check_image
from components.photometry.blur import convolve, disc_kernel, trajectory_kernel
from components.photometry.photons import photon_noise


def motion_blur(image: Tensor, extent: float, generator: torch.Generator) -> Tensor:
    """Blur along a random trajectory, as a hand-held camera draws during the exposure.

    Args:
        image: (..., 3, H, W) sRGB in [0, 1].
        extent: from end to end of the path, as a fraction of the short side; 0 changes nothing.
        generator: draws the path (`components.photometry.blur.shake_trajectory`).

    Returns:
        (..., 3, H, W) sRGB in [0, 1].
    """
    check_image(image)
    kernel = trajectory_kernel(extent * min(image.shape[-2:]), generator)
    return fused.encode(convolve(fused.decode(image), kernel))


def defocus_blur(image: Tensor, radius: float) -> Tensor:
    """Blur by the uniform disc that a round aperture draws out of focus.

    Args:
        image: (..., 3, H, W) sRGB in [0, 1].
        radius: radius of the circle of confusion as a fraction of the short side; 0 changes nothing.

    Returns:
        (..., 3, H, W) sRGB in [0, 1].
    """
    check_image(image)
    return fused.encode(convolve(fused.decode(image), disc_kernel(radius * min(image.shape[-2:]))))


def noise(image: Tensor, sigma: float, generator: torch.Generator, read_share: float = 0.25) -> Tensor:
    """Poisson-Gaussian sensor noise in linear light: photon shot noise plus signal-independent read noise.

    The variance at linear light I is sigma^2 ((1 - read_share) I / 0.18 + read_share).

    Args:
        image: (..., 3, H, W) sRGB in [0, 1].
        sigma: standard deviation at mid-grey (0.18), in linear light where white is 1.
        generator: draws every photon count and read error.
        read_share: share of the variance at mid-grey that is read noise, 0 to 1.

    Returns:
        (..., 3, H, W) sRGB in [0, 1].

    Source: Foi et al. (2008), "Practical Poissonian-Gaussian noise modeling and fitting", equations 1 to 4.
    """
    check_image(image)
    return fused.encode(_sensor_noise(fused.decode(image), sigma, generator, read_share))


def jpeg(image: Tensor, quality_loss: float) -> Tensor:
    """Compress as baseline JPEG with 4:2:0 chroma and decode again, in memory, by libjpeg-turbo.

    Args:
        image: (..., 3, H, W) sRGB in [0, 1].
        quality_loss: 100 minus the libjpeg quality factor, rounded to a whole number; 1 to 99.

    Returns:
        (..., 3, H, W) sRGB in [0, 1], 8-bit code values.
    """
    check_image(image)
    pictures = image.reshape(-1, *image.shape[-3:])
    decoded = [fused.from_samples(jpeg_samples(fused.to_samples(picture), quality_loss)) for picture in pictures]
    return (decoded[0] if len(decoded) == 1 else torch.stack(decoded)).reshape(image.shape)


def jpeg_samples(samples: np.ndarray, quality_loss: float) -> np.ndarray:
    """`jpeg` of 8-bit samples (H, W, 3)."""
    content = imagecodecs.jpeg8_encode(samples, level=round(100 - quality_loss), subsampling="420")
    return imagecodecs.jpeg8_decode(content)


def haze(image: Tensor, optical_depth: float, generator: torch.Generator, airlight: float = 0.8) -> Tensor:
    """Scatter light in the air: I = J t + A (1 - t) in linear light, t = exp(-optical_depth * depth).

    Without a depth map, depth is a cue in [0, 1]: far at the top, near at the bottom, with smooth random relief.

    Args:
        image: (..., 3, H, W) sRGB in [0, 1], the clear scene J.
        optical_depth: scattering coefficient times the farthest distance; 0 changes nothing.
        generator: draws the relief.
        airlight: A, linear light of the haze itself, the same in all channels.

    Returns:
        (..., 3, H, W) sRGB in [0, 1].

    Source: Koschmieder (1924); Narasimhan and Nayar (2002), equation 3.
    """
    check_image(image)
    depth = depth_cue(image.shape[-2], image.shape[-1], generator).float()
    transmission = torch.exp(-optical_depth * depth)
    return fused.encode(torch.lerp(torch.tensor(airlight), fused.decode(image), transmission))


def low_light(
    image: Tensor, stops: float, generator: torch.Generator, sigma: float = 0.005, read_share: float = 0.25
) -> Tensor:
    """Photograph the scene with too little light: darker by ``stops``, noise that does not darken with it, 8 bits.

    Args:
        image: (..., 3, H, W) sRGB in [0, 1].
        stops: EV by which light is short, positive.
        generator: draws the noise.
        sigma, read_share: the sensor's noise, as in :func:`noise` and unchanged by the darkness, so that shadows
            drown in it.

    Returns:
        (..., 3, H, W) sRGB in [0, 1], rounded to 8-bit code values.
    """
    check_image(image)
    dark = _sensor_noise(fused.decode(image) * 2.0**-stops, sigma, generator, read_share)
    return (fused.encode(dark) * 255).round() / 255


def depth_cue(height: int, width: int, generator: torch.Generator) -> Tensor:
    """A plausible depth map (H, W) in [0, 1], float64: a vertical gradient, far at the top, plus smooth random relief.

    The relief is a random 4 x 4 grid enlarged smoothly, so one seed gives the same relief at every size.
    """
    slope, down, across = depth_factors(height, width, generator)
    return (slope[:, None] + 0.5 * (down @ across - 0.5)).clamp(0, 1)


def depth_factors(height: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """What `depth_cue` is made of: its gradient (H,) and the factors (H, 4) and (4, W) of its relief, float64."""
    grid = torch.rand((4, 4), generator=generator, dtype=torch.float64)
    rows = (torch.arange(height, dtype=torch.float64) + 0.5) / height
    return 0.15 + 0.6 * (1 - rows), _enlargement(height) @ grid, _enlargement(width).T


def _enlargement(size: int) -> Tensor:
    """(size, 4) float64: bicubic interpolation of four values, a product a side, which is cheaper than in two."""
    basis = torch.eye(4, dtype=torch.float64)[None, :, :, None]
    return functional.interpolate(basis, size=(size, 1), mode="bicubic", align_corners=False)[0, :, :, 0].T


def _sensor_noise(linear_image: Tensor, sigma: float, generator: torch.Generator, read_share: float) -> Tensor:
    light = linear_image.clamp(0, 1)
    photon, seed = draw_photons(sigma, read_share, generator)
    if photon > 0:
        light = photon_noise(light, photon, seed)
    read = torch.randn(light.shape, generator=generator)
    return light.add_(read, alpha=sigma * math.sqrt(read_share))


def draw_photons(sigma: float, read_share: float, generator: torch.Generator) -> tuple[float, int]:
    """Linear light of one photon, and the seed of their counts, which is drawn where there are photons."""
    photon = sigma**2 * (1 - read_share) / MID_GREY
    return photon, int(torch.randint(2**63 - 1, (1,), generator=generator)) if photon > 0 else 0
