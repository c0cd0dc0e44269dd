"""The operations of pair synthesis written with kornia and with albumentations, for the benchmark.

Each goes from 8 bits to 8 bits with the same parameters, in the library's own functions wherever it has one: colour
spaces, filters, JPEG and noise. What neither has (the white's move, a kernel given from outside, the scattering
model) is written around those functions in the library's idiom: tensors for kornia, numpy and OpenCV in a custom
transform for albumentations.
"""

from typing import NamedTuple, Self

import albumentations
import cv2
import kornia
import numpy as np
import torch
from torch import Tensor

from components.photometry.attributes import MID_GREY
from components.photometry.blur import disc_kernel, trajectory_kernel
from components.photometry.colour import D65_MIRED, bradford, mired_to_xy, rgb_to_xyz_matrix
from components.photometry.degradations import depth_cue
from components.photometry.operations import Operation

OPERATIONS: dict[str, tuple[Operation, ...]] = {
    "tone": (
        Operation(name="exposure", amount=-0.8),
        Operation(name="contrast", amount=0.4),
        Operation(name="saturation", amount=-0.6),
        Operation(name="temperature", amount=40.0),
    ),
    "motion_blur": (Operation(name="motion_blur", amount=0.05, seed=1),),
    "defocus_blur": (Operation(name="defocus_blur", amount=0.02),),
    "noise": (Operation(name="noise", amount=0.03, seed=1),),
    "jpeg": (Operation(name="jpeg", amount=70.0),),
    "haze": (Operation(name="haze", amount=1.2, seed=1),),
}
"""What is timed, in the middle of the severities of `components.data.faults` and `components.data.degradations`."""

_READ_SHARE, _AIRLIGHT = 0.25, 0.8


class Recipe(NamedTuple):
    """An operation and what a library is given ready-made, for it is the same for all."""

    name: str
    operations: tuple[Operation, ...]
    kernel: Tensor | None
    depth: Tensor | None
    white: Tensor | None
    """(3, 3) of linear sRGB: the move of the white."""

    @classmethod
    def of(cls, name: str, operations: tuple[Operation, ...], size: tuple[int, int]) -> Self:
        amount, short_side = operations[0].amount, min(size)
        generator = torch.Generator().manual_seed(operations[0].seed)
        kernel = depth = white = None
        if name == "motion_blur":
            kernel = trajectory_kernel(amount * short_side, generator)
        elif name == "defocus_blur":
            kernel = disc_kernel(amount * short_side)
        elif name == "haze":
            depth = depth_cue(*size, generator)
        elif name == "tone":
            neutral, warm = mired_to_xy(D65_MIRED), mired_to_xy(D65_MIRED + operations[-1].amount)
            to_xyz = rgb_to_xyz_matrix()
            white = torch.linalg.inv(to_xyz) @ bradford(neutral, warm) @ to_xyz
        return cls(name, operations, kernel, depth, white)


class KorniaPeer:
    """kornia, on torch's threads."""

    def apply(self, photo: np.ndarray, recipe: Recipe) -> np.ndarray:
        """A photo (H, W, 3) of 8 bits after the recipe's operation."""
        image = kornia.image_to_tensor(photo, keepdim=False).float() / 255
        amount = recipe.operations[0].amount
        if recipe.name == "jpeg":
            quality = torch.tensor([100 - amount])
            return self._samples(kornia.enhance.jpeg_codec_differentiable(_divisible(image), quality), image)
        linear_image = kornia.color.rgb_to_linear_rgb(image)
        match recipe.name:
            case "tone":
                linear_image = self._tone(linear_image, recipe)
            case "motion_blur" | "defocus_blur":
                kernel = recipe.kernel.flip(0, 1)[None].float()  # filter2d correlates
                linear_image = kornia.filters.fft_conv(linear_image, kernel, border_type="reflect")
            case "noise":
                photon = amount**2 * (1 - _READ_SHARE) / MID_GREY
                linear_image = torch.poisson(linear_image / photon) * photon
                linear_image = linear_image + torch.randn_like(linear_image) * (amount * _READ_SHARE**0.5)
            case "haze":
                transmission = torch.exp(-amount * recipe.depth.float())
                linear_image = linear_image * transmission + _AIRLIGHT * (1 - transmission)
        return self._samples(kornia.color.linear_rgb_to_rgb(linear_image.clamp(0, 1)), image)

    def _tone(self, linear_image: Tensor, recipe: Recipe) -> Tensor:
        exposure, contrast, saturation, _ = (operation.amount for operation in recipe.operations)
        image = kornia.color.linear_rgb_to_rgb(linear_image * 2**exposure)
        lab = kornia.color.rgb_to_lab(image)
        lab[:, :1] = 50 + (lab[:, :1] - 50) * 2**contrast
        lab[:, 1:] = lab[:, 1:] * 2**saturation
        linear_image = kornia.color.rgb_to_linear_rgb(kornia.color.lab_to_rgb(lab, clip=False))
        return torch.einsum("ij,bjhw->bihw", recipe.white.float(), linear_image)

    def _samples(self, result: Tensor, like: Tensor) -> np.ndarray:
        result = result[..., : like.shape[-2], : like.shape[-1]]
        return kornia.tensor_to_image((result.clamp(0, 1) * 255).round().to(torch.uint8))


class _OnLinearLight(albumentations.ImageOnlyTransform):
    """albumentations' custom transform: 8 bits to linear light by table, the operation, and back by power."""

    _table = (lambda c: np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4))(np.arange(256) / 255)

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(p=1.0)
        self._recipe = recipe

    def apply(self, img: np.ndarray, **_: object) -> np.ndarray:
        recipe = self._recipe
        light = cv2.LUT(img, self._table.astype(np.float32))
        amount = recipe.operations[0].amount
        match recipe.name:
            case "tone":
                exposure, contrast, saturation, _ = (operation.amount for operation in recipe.operations)
                lab = cv2.cvtColor(light * np.float32(2**exposure), cv2.COLOR_LRGB2LAB)
                scale = np.float32([2**contrast, 2**saturation, 2**saturation])
                lab = lab * scale + np.float32([50 - 50 * 2**contrast, 0, 0])
                light = cv2.transform(cv2.cvtColor(lab, cv2.COLOR_LAB2LRGB), recipe.white.numpy().astype(np.float32))
            case "motion_blur" | "defocus_blur":
                kernel = np.ascontiguousarray(recipe.kernel.flip(0, 1).numpy(), dtype=np.float32)
                light = cv2.filter2D(light, -1, kernel, borderType=cv2.BORDER_REFLECT)
            case "noise":
                photon = amount**2 * (1 - _READ_SHARE) / MID_GREY
                light = self.random_generator.poisson(light / photon) * np.float32(photon)
                read = self.random_generator.standard_normal(light.shape, dtype=np.float32)
                light = light.astype(np.float32) + read * np.float32(amount * _READ_SHARE**0.5)
            case "haze":
                transmission = np.exp(-np.float32(amount) * recipe.depth.numpy().astype(np.float32))[..., None]
                light = light * transmission + np.float32(_AIRLIGHT) * (1 - transmission)
        light = np.clip(light, 0, 1, out=np.ascontiguousarray(light))
        curve = cv2.pow(light, 1 / 2.4) * np.float32(1.055) - np.float32(0.055)
        image = np.where(light <= 0.0031308, light * np.float32(12.92), curve)
        return np.rint(image * 255).astype(np.uint8)


class AlbumentationsPeer:
    """albumentations, which works on one photo a thread."""

    def __init__(self) -> None:
        cv2.setNumThreads(1)
        self._transforms: dict[str, albumentations.BasicTransform] = {}

    def apply(self, photo: np.ndarray, recipe: Recipe) -> np.ndarray:
        """A photo (H, W, 3) of 8 bits after the recipe's operation."""
        if recipe.name not in self._transforms:
            quality = round(100 - recipe.operations[0].amount) if recipe.name == "jpeg" else 0
            self._transforms[recipe.name] = (
                albumentations.ImageCompression(quality_range=(quality, quality), p=1.0)
                if recipe.name == "jpeg"
                else _OnLinearLight(recipe)
            )
        return self._transforms[recipe.name](image=photo)["image"]


def _divisible(image: Tensor) -> Tensor:
    """Padded to whole blocks of 16 pixels, which kornia's JPEG codec asks for."""
    right, bottom = -image.shape[-1] % 16, -image.shape[-2] % 16
    return torch.nn.functional.pad(image, (0, right, 0, bottom), mode="replicate")
