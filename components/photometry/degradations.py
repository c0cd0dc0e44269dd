"""Restoration degradations with known parameters: motion blur, defocus, sensor noise, JPEG, haze and low light.

Light adds up in the scene and on the sensor, so blur, noise, haze and darkness all happen in linear light. Sizes are
fractions of the picture's short side, so that an operation means the same at every resolution. Random parts come from
the given CPU generator only, whatever device the picture is on.
"""

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from components.photometry.attributes import MID_GREY, check_image
from components.photometry.colour import linear_to_srgb, srgb_to_linear


def motion_blur(image: Tensor, length: float, generator: torch.Generator) -> Tensor:
    """Blur along a random smooth trajectory, as a hand-held camera draws during the exposure.

    Args:
        image: (..., 3, H, W) sRGB in [0, 1].
        length: path length as a fraction of the short side; 0 changes nothing.
        generator: decides direction, bends and speed of the path.

    Returns:
        (..., 3, H, W) sRGB in [0, 1].
    """
    check_image(image)
    kernel = trajectory_kernel(length * min(image.shape[-2:]), generator)
    return _to_srgb(convolve(srgb_to_linear(image), kernel))


def defocus_blur(image: Tensor, radius: float) -> Tensor:
    """Blur by the uniform disc that a round aperture draws out of focus.

    Args:
        image: (..., 3, H, W) sRGB in [0, 1].
        radius: radius of the circle of confusion as a fraction of the short side; 0 changes nothing.

    Returns:
        (..., 3, H, W) sRGB in [0, 1].
    """
    check_image(image)
    return _to_srgb(convolve(srgb_to_linear(image), disc_kernel(radius * min(image.shape[-2:]))))


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
    return _to_srgb(_sensor_noise(srgb_to_linear(image), sigma, generator, read_share))


def jpeg(image: Tensor, quality_loss: float) -> Tensor:
    """Compress as baseline JPEG with 4:2:0 chroma and decode again, in memory, through Pillow.

    Args:
        image: (..., 3, H, W) sRGB in [0, 1].
        quality_loss: 100 minus the libjpeg quality factor, rounded to a whole number; 1 to 99.

    Returns:
        (..., 3, H, W) sRGB in [0, 1], 8-bit code values.
    """
    check_image(image)
    codes = (image.clamp(0, 1) * 255).round().to(torch.uint8).reshape(-1, *image.shape[-3:])
    decoded = []
    for picture in codes.cpu():
        buffer = io.BytesIO()
        file = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
        file.save(buffer, "JPEG", quality=round(100 - quality_loss), subsampling="4:2:0")
        with Image.open(buffer) as opened:
            decoded.append(torch.from_numpy(np.array(opened)).permute(2, 0, 1))
    return (torch.stack(decoded).to(image) / 255).reshape(image.shape)


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
    depth = depth_cue(image.shape[-2], image.shape[-1], generator).to(image)
    transmission = torch.exp(-optical_depth * depth)
    return _to_srgb(srgb_to_linear(image) * transmission + airlight * (1 - transmission))


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
    dark = _sensor_noise(srgb_to_linear(image) * 2.0**-stops, sigma, generator, read_share)
    return (_to_srgb(dark) * 255).round() / 255


def disc_kernel(radius: float) -> Tensor:
    """A uniform disc (2r+1, 2r+1), float64, sum 1, whose edge falls over one pixel; ``radius`` in pixels."""
    reach = math.ceil(radius + 0.5)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    distance = torch.hypot(offsets[:, None], offsets[None, :])
    kernel = (radius + 0.5 - distance).clamp(0, 1)
    return kernel / kernel.sum()


def trajectory_kernel(length: float, generator: torch.Generator) -> Tensor:
    """The kernel (2r+1, 2r+1), float64, sum 1, of a smooth random camera path of ``length`` pixels.

    The heading starts anywhere and bends by a slow random curve; the speed varies smoothly by about a third. The
    path's time-weighted centroid is at the centre, so the picture is not displaced.
    """
    steps = max(64, math.ceil(8 * length))
    draws = torch.rand(6, generator=generator, dtype=torch.float64)
    phase = torch.linspace(0, 1, steps, dtype=torch.float64)
    turn = 2 * math.pi
    bend = (draws[1] - 0.5) * 0.5 * turn * phase + 0.15 * turn * draws[2] * torch.sin(turn * (phase + draws[3]))
    speed = 1 + 0.35 * (0.5 + draws[4]) * torch.sin(turn * (phase + draws[5]))
    heading = draws[0] * turn + bend
    steps_xy = torch.stack((torch.cos(heading), torch.sin(heading)), dim=-1) * speed[:, None]
    path = steps_xy.cumsum(0) * (length / speed.sum())
    path = path - path.mean(0)

    reach = math.ceil(path.abs().max().item()) + 1
    size = 2 * reach + 1
    corner = path.floor()
    fraction = path - corner
    cell = corner.long() + reach
    kernel = torch.zeros(size * size, dtype=torch.float64)
    for dx in (0, 1):
        for dy in (0, 1):
            weight = (fraction[:, 0] - (1 - dx)).abs() * (fraction[:, 1] - (1 - dy)).abs()
            kernel.index_add_(0, (cell[:, 1] + dy) * size + cell[:, 0] + dx, weight)
    return (kernel / kernel.sum()).view(size, size)


def depth_cue(height: int, width: int, generator: torch.Generator) -> Tensor:
    """A plausible depth map (H, W) in [0, 1], float64: a vertical gradient, far at the top, plus smooth random relief.

    The relief is a random 4 x 4 grid enlarged smoothly, so one seed gives the same relief at every size.
    """
    grid = torch.rand((1, 1, 4, 4), generator=generator, dtype=torch.float64)
    relief = functional.interpolate(grid, size=(height, width), mode="bicubic", align_corners=False)[0, 0]
    rows = (torch.arange(height, dtype=torch.float64) + 0.5) / height
    return (0.15 + 0.6 * (1 - rows)[:, None] + 0.5 * (relief - 0.5)).clamp(0, 1)


def convolve(image: Tensor, kernel: Tensor) -> Tensor:
    """Convolve each channel with one kernel; beyond its border the picture continues mirrored.

    Args:
        image: (..., H, W), any size down to 1 x 1.
        kernel: (2r+1, 2r+1), centred.

    Returns:
        (..., H, W). Computed by FFT: the cost does not grow with the kernel.
    """
    reach = kernel.shape[-1] // 2
    height, width = image.shape[-2:]
    extended = image[..., _mirrored(height, reach, image.device), :][..., _mirrored(width, reach, image.device)]
    size = extended.shape[-2:]
    padded = torch.zeros(size, dtype=torch.float64)
    padded[: kernel.shape[0], : kernel.shape[1]] = kernel
    padded = padded.roll((-reach, -reach), (0, 1)).to(image)
    blurred = torch.fft.irfft2(torch.fft.rfft2(extended) * torch.fft.rfft2(padded), s=size)
    return blurred[..., reach : reach + height, reach : reach + width]


def _mirrored(size: int, reach: int, device: torch.device) -> Tensor:
    """Indices of ``size`` pixels continued mirrored by ``reach`` on both sides (d c b a|a b c d|d c b a)."""
    index = torch.arange(-reach, size + reach, device=device) % (2 * size)
    return torch.where(index < size, index, 2 * size - 1 - index)


def _sensor_noise(linear_image: Tensor, sigma: float, generator: torch.Generator, read_share: float) -> Tensor:
    light = linear_image.clamp(0, 1).cpu()
    photon = sigma**2 * (1 - read_share) / MID_GREY  # linear light of one photon
    if photon > 0:
        light = torch.poisson(light / photon, generator=generator) * photon
    read = torch.randn(light.shape, generator=generator, dtype=light.dtype)
    return (light + sigma * math.sqrt(read_share) * read).to(linear_image.device)


def _to_srgb(linear_image: Tensor) -> Tensor:
    return linear_to_srgb(linear_image.clamp(0, 1)).clamp(0, 1)
