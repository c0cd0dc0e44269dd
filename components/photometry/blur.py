"""Blur kernels and convolution: the defocused disc, the shaken camera's trajectory, and a fast exact convolution."""

import cmath
import math

import scipy.fft
import torch
from torch import Tensor

_STEPS = 2000
_MODEL_LENGTH = 60.0  # pixels: the scale at which the published constants of the camera-shake model hold
_DIRECTIONS = 64


def disc_kernel(radius: float) -> Tensor:
    """A uniform disc (2r+1, 2r+1), float64, sum 1, whose edge falls over one pixel; ``radius`` in pixels."""
    reach = math.ceil(radius + 0.5)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    distance = torch.hypot(offsets[:, None], offsets[None, :])
    kernel = (radius + 0.5 - distance).clamp(0, 1)
    return kernel / kernel.sum()


def trajectory_kernel(extent: float, generator: torch.Generator) -> Tensor:
    """The kernel (2r+1, 2r+1), float64, sum 1, of a random camera shake that reaches ``extent`` pixels from end to end.

    The path's time-weighted centroid is at the centre, so the picture is not displaced.
    """
    path = shake_trajectory(generator) * extent
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


def shake_trajectory(generator: torch.Generator) -> Tensor:
    """Positions (2000, 2), x and y in equal steps of time, of a camera shaken during an exposure.

    The camera moves at one speed whose direction is a Markov process: it is jolted by Gaussian shocks at every moment
    and reversed by rare large ones, and inertia pulls it back to where it began. How nervous it is, is drawn first.

    Returns:
        float64, mean 0, scaled so that the largest distance between two points is 1.

    Source: Boracchi and Foi (2012), "Modeling the performance of image restoration from motion blur", section III, with
    the constants of Kupyn et al. (2018), "DeblurGAN", algorithm 1.
    """
    nervousness, pull, jolt, shock, heading = torch.rand(5, generator=generator, dtype=torch.float64).tolist()
    nervousness, pull, jolt, shock = 0.1 * nervousness, 0.7 * pull, 0.2 * jolt, 10 * shock
    chances = torch.rand((2, _STEPS), generator=generator, dtype=torch.float64).tolist()
    shocks = torch.randn((_STEPS, 2), generator=generator, dtype=torch.float64).tolist()
    step = _MODEL_LENGTH / (_STEPS - 1)
    position, velocity = 0j, cmath.rect(step, 2 * math.pi * heading)
    path = [position]
    for chance, turn, (shock_x, shock_y) in zip(*(row[1:] for row in chances), shocks[1:], strict=True):
        change = nervousness * (shock * complex(shock_x, shock_y) - pull * position) * step
        if chance < jolt * nervousness:
            change += 2 * velocity * cmath.exp(1j * (math.pi + turn - 0.5))
        velocity += change
        velocity *= step / abs(velocity)
        position += velocity
        path.append(position)
    points = torch.view_as_real(torch.tensor(path, dtype=torch.complex128))
    points = points - points.mean(0)
    angles = torch.arange(_DIRECTIONS, dtype=torch.float64) * (math.pi / _DIRECTIONS)
    along = points @ torch.stack((angles.cos(), angles.sin()))
    return points / (along.amax(0) - along.amin(0)).max()


def convolve(image: Tensor, kernel: Tensor) -> Tensor:
    """Convolve each channel with one kernel; beyond its border the picture continues mirrored.

    Args:
        image: (..., H, W), any size down to 1 x 1.
        kernel: (2r+1, 2r+1), centred.

    Returns:
        (..., H, W). Computed by FFT: the cost does not grow with the kernel.
    """
    return Convolver(image, kernel.shape[-1] // 2)(kernel)


class Convolver:
    """`convolve` of one picture with several kernels, whose spectrum is taken once.

    Args:
        image: (..., H, W).
        reach: r of the largest kernel (2r+1, 2r+1).
    """

    def __init__(self, image: Tensor, reach: int) -> None:
        self._reach, self._size = reach, image.shape[-2:]
        # Lengths with small prime factors: FFTs of prime length cost several times as much.
        self._fast = tuple(scipy.fft.next_fast_len(length + 2 * reach, real=True) for length in self._size)
        self._like = image
        self._spectrum = torch.fft.rfft2(_extended(image, reach, self._fast))

    def __call__(self, kernel: Tensor) -> Tensor:
        """The picture convolved with (2q+1, 2q+1), q at most ``reach``."""
        reach, side = kernel.shape[-1] // 2, kernel.shape[-1]
        padded = self._like.new_zeros(self._fast)
        padded[:side, :side] = kernel.to(self._like)
        blurred = torch.fft.irfft2(self._spectrum * torch.fft.rfft2(padded), s=self._fast)
        top = self._reach + reach  # the kernel's own corner is at the origin, not its centre
        height, width = self._size
        return blurred[..., top : top + height, top : top + width]


def _extended(image: Tensor, reach: int, size: tuple[int, ...]) -> Tensor:
    """The picture continued mirrored by ``reach`` on all sides (d c b a|a b c d|d c b a), then by zeros to ``size``."""
    height, width = image.shape[-2:]
    bottom, right = height + reach, width + reach
    extended = image.new_zeros((*image.shape[:-2], *size))
    if reach > min(height, width):  # mirrored more than once
        rows, columns = (_mirrored(length, reach, image.device) for length in (height, width))
        extended[..., : bottom + reach, : right + reach] = image[..., rows, :][..., columns]
        return extended
    extended[..., reach:bottom, reach:right] = image
    extended[..., :reach, reach:right] = image[..., :reach, :].flip(-2)
    extended[..., bottom : bottom + reach, reach:right] = image[..., height - reach :, :].flip(-2)
    extended[..., :reach] = extended[..., reach : 2 * reach].flip(-1)
    extended[..., right : right + reach] = extended[..., right - reach : right].flip(-1)
    return extended


def _mirrored(size: int, reach: int, device: torch.device) -> Tensor:
    """Indices of ``size`` pixels continued mirrored by ``reach`` on both sides."""
    index = torch.arange(-reach, size + reach, device=device) % (2 * size)
    return torch.where(index < size, index, 2 * size - 1 - index)
