"""The one place that reads and writes picture files.

Files come in as whatever people have: rotated by EXIF, in wide-gamut or CMYK profiles, greyscale, palette, with alpha,
with 16 bits per sample, HEIC or camera raw, truncated or empty. Inside the library every picture is a float32 tensor
(3, H, W), upright, sRGB in [0, 1]. What a file carried beside its pixels travels along in `Photo` and is written back.
Photos of many megapixels that need not be held as floats are in `components.imaging.originals`.

    >>> photo = read_photo(Path("in.jpg"))                                  # doctest: +SKIP
    >>> write_photo(photo.with_pixels(photo.pixels * 0.9), Path("out.jpg"))  # doctest: +SKIP
"""

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import imagecodecs
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from components import files
from components.imaging import codecs, profiles
from components.imaging.boxes import VIDEO_BOX
from components.imaging.formats import FORMAT_OF_SUFFIX, Beside, Header, RawImage
from components.imaging.formats import MAX_PIXELS as MAX_PIXELS  # what every reader takes by default
from components.imaging.metadata import says_adobe_rgb, upright_exif
from components.imaging.png import encode_png
from components.imaging.source import PictureFile, decoding
from components.imaging.source import UnreadablePhoto as UnreadablePhoto  # what every reader raises
from components.imaging.xmp import (
    extension,
    joined,
    promises_gain_map,
    upright_xmp,
    without_claims,
    without_extension,
)

log = logging.getLogger(__name__)

_ALPHA_FORMATS = ("PNG", "TIFF", "WEBP", "AVIF", "HEIF")
_DEEP_FORMATS = ("PNG", "TIFF", "HEIF")


@dataclass(frozen=True)
class Photo:
    """A decoded picture and what its file carried beside the pixels.

    Attributes:
        pixels: float32 (3, H, W), sRGB in [0, 1], upright.
        alpha: float32 (1, H, W) in [0, 1], or None when the file is opaque by construction.
        format: Pillow's name of the file format, such as "JPEG", or "RAW".
        bit_depth: bits per sample in the file, 8 or 16.
        mode: Pillow's mode of the file, such as "RGB", "L", "CMYK", "P".
        exif: EXIF block (TIFF structure, no prefix) as read, or None.
        icc: ICC profile the file came with; ``pixels`` are already converted out of it.
        xmp: XMP packet as read, or None.
        beside: what else the file carried.
    """

    pixels: Tensor
    alpha: Tensor | None = None
    format: str = "PNG"
    bit_depth: int = 8
    mode: str = "RGB"
    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    beside: Beside = field(default_factory=Beside)

    @property
    def width(self) -> int:
        return self.pixels.shape[-1]

    @property
    def height(self) -> int:
        return self.pixels.shape[-2]

    def reduced(self, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """The photo reduced to each of some sizes (height, width), (3, h, w)."""
        return [resize(self.pixels, size) for size in sizes]

    def with_pixels(self, pixels: Tensor) -> "Photo":
        """The same photo with other pixels (3, H, W) of the same size, as an edit makes.

        Raises:
            ValueError: the shape differs from the photo's.
        """
        if pixels.shape != self.pixels.shape:
            raise ValueError(f"expected edited pixels of shape {tuple(self.pixels.shape)}, found {tuple(pixels.shape)}")
        return replace(self, pixels=pixels)


def read_header(file: PictureFile, max_pixels: int = MAX_PIXELS) -> Header:
    """Size (before EXIF orientation), format, mode and bit depth of a file, without decoding its pixels.

    Raises:
        OSError: it cannot be read; FileNotFoundError where there is no such file.
        UnreadablePhoto: it is empty, not a picture, unsupported or larger than ``max_pixels``.
    """
    with decoding(file) as source:
        return codecs.read_header(source, max_pixels)


def read_photo(file: PictureFile, max_pixels: int = MAX_PIXELS) -> Photo:
    """Decode a picture file completely: upright, converted to sRGB by its ICC profile, alpha kept apart.

    Greyscale becomes three equal channels. CMYK without a profile is converted by the naive formula
    (1 - ink)(1 - black). A broken ICC profile is logged and the samples are taken as sRGB.

    Args:
        file: JPEG, PNG, TIFF, WebP, AVIF, HEIC, camera raw, BMP or GIF (first frame).
        max_pixels: larger pictures are refused before they are decoded.

    Raises:
        OSError: it cannot be read; FileNotFoundError where there is no such file.
        UnreadablePhoto: empty, truncated, corrupt, not a picture, too large, or with samples that are not supported
            (floating point, LAB).
    """
    raw = decode(file, max_pixels)
    orientation = raw.header.orientation
    alpha = None if raw.alpha is None else _to_tensor(upright(raw.alpha, orientation)[..., None])
    return Photo(
        pixels=_to_tensor(upright(srgb_samples(raw, file), orientation)),
        alpha=alpha,
        format=raw.header.format,
        bit_depth=raw.header.bit_depth,
        mode=raw.header.mode,
        exif=raw.exif,
        icc=raw.icc,
        xmp=raw.xmp,
        beside=raw.beside,
    )


def decode(file: PictureFile, max_pixels: int = MAX_PIXELS) -> RawImage:
    """Decode a picture file completely, into the samples it holds. Raises what `read_photo` raises."""
    with decoding(file) as source:
        return codecs.read_samples(source, codecs.read_header(source, max_pixels))


def write_photo(photo: Photo, path: Path, quality: int = 95) -> None:
    """Write a photo in the format of the suffix, whole or not at all. See `encode_photo`.

    Raises:
        ValueError: as `encode_photo`.
        OSError: the file cannot be written (disk full, no permission); an existing file is left as it was.
    """
    files.write_bytes(path, encode_photo(photo, Path(path).name, quality))


def encode_photo(photo: Photo, name: str, quality: int = 95) -> bytes:
    """A photo as a file in the format of the suffix.

    EXIF is kept with orientation 1, the stored size corrected and the old thumbnail unlinked; XMP is kept. A photo that
    came with an RGB profile leaves in it; one that came with another kind (CMYK, grey) leaves with an sRGB profile.
    16 bits per sample and alpha are kept where the format has them.

    Args:
        photo: pixels (3, H, W) in [0, 1]; values outside are clipped.
        name: .jpg, .jpeg, .png, .tif, .tiff, .webp, .avif, .heic or .heif.
        quality: 1..100, for JPEG, WebP, AVIF and HEIC.

    Raises:
        ValueError: unknown suffix, or a JPEG asked for a photo that is partly transparent.
    """
    bits = stored_bits(name, photo.bit_depth)
    pixels, icc = photo.pixels, profiles.srgb_profile() if photo.icc else None
    if photo.icc and profiles.is_two_way(photo.icc):
        icc = photo.icc
        if not profiles.is_srgb(icc):
            colours = profiles.from_extended(pixels.clamp(0, 1).permute(1, 2, 0).numpy(), icc)
            pixels = torch.from_numpy(colours).permute(2, 0, 1)
    alpha = None if photo.alpha is None else _to_samples(photo.alpha, bits)[..., 0]
    return encode(name, _to_samples(pixels, bits), alpha, icc, photo.exif, photo.xmp, quality, photo.beside)


def stored_bits(name: str, bit_depth: int) -> int:
    """Bits a sample, 8 or 16, that a photo of ``bit_depth`` will have in the file ``name``; warns where it loses some.

    Raises:
        ValueError: the suffix is not one that can be written.
    """
    file_format = _format_of(name)
    if bit_depth > 8 and file_format not in _DEEP_FORMATS:
        log.warning("%s: %s holds 8 bits per sample, the photo has %d", name, file_format, bit_depth)
        return 8
    return 16 if bit_depth > 8 else 8


def encode(
    name: str,
    samples: np.ndarray,
    alpha: np.ndarray | None,
    icc: bytes | None,
    exif: bytes | None,
    xmp: bytes | None,
    quality: int = 95,
    beside: Beside | None = None,
) -> bytes:
    """Upright samples (H, W, 3), alpha (H, W) of the same type and metadata as a file in the format of the suffix.

    A motion photo keeps its film from JPEG to JPEG, and among HEIC and AVIF. Where the film, a gain map or a part of
    XMP stays behind, XMP no longer promises it.

    Raises: as `encode_photo`.
    """
    file_format = _format_of(name)
    if alpha is not None and file_format not in _ALPHA_FORMATS:
        if bool((alpha < np.iinfo(alpha.dtype).max).any()):
            raise ValueError(f"{name}: {file_format} cannot hold the photo's transparency: write .png, .tif or .webp")
        alpha = None
    if alpha is not None:
        samples = np.concatenate([samples, alpha[..., None]], axis=-1)
    height, width = samples.shape[:2]
    exif = upright_exif(exif, width, height, is_srgb=icc is None and says_adobe_rgb(exif)) if exif else None
    beside = beside or Beside()
    has_video = beside.video is not None and file_format in _holders(beside.video)
    if beside.video is not None and not has_video:
        log.warning("%s: the film of a motion photo does not go from its format into %s: left out", name, file_format)
        beside = replace(beside, video=None)
    if xmp and beside.extended_xmp is None and extension(xmp):
        log.warning("%s: the XMP packet names another one that is not all there, and is left out", name)
        xmp = without_extension(xmp)
    elif xmp and beside.extended_xmp is not None and file_format != "JPEG":
        xmp = joined(xmp, beside.extended_xmp)
    if xmp and promises_gain_map(xmp):
        log.warning("%s: the gain map for HDR displays is of the photo before the edit, and is left out", name)
    xmp = without_claims(upright_xmp(xmp), keep_video=has_video) if xmp else None
    return codecs.encode(samples, file_format, icc, exif, xmp, quality, beside)


def _holders(video: bytes) -> tuple[str, ...]:
    """The formats that hold the film of a motion photo as it is."""
    return ("HEIF", "AVIF") if video[4:8] == VIDEO_BOX else ("JPEG",)


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (..., 3, H, W) to ``size`` = (height, width): antialiased bicubic, clamped to [0, 1].

    Reference: Keys' cubic convolution (a = -0.5) with its support widened by the reduction factor, as in Pillow.
    """
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    batch = image.reshape(-1, *image.shape[-3:])
    resized = functional.interpolate(batch, size=tuple(size), mode="bicubic", antialias=True, align_corners=False)
    return resized.clamp(0, 1).reshape(*image.shape[:-2], *size)


def resize_short_side(image: Tensor, short_side: int) -> Tensor:
    """Resize (..., 3, H, W) so that the shorter side is ``short_side`` pixels, keeping the proportions.

    A picture that is already smaller is returned as it is: nothing is enlarged.
    """
    return resize(image, short_side_size(image.shape[-2], image.shape[-1], short_side))


def short_side_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width of a picture after `resize_short_side`."""
    if min(height, width) <= short_side:
        return height, width
    scale = short_side / min(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def to_png_bytes(image: Tensor) -> bytes:
    """(3, H, W) in [0, 1] as an 8-bit PNG, compressed lightly; the same tensor always gives the same bytes."""
    return encode_png(_to_samples(image, 8), fast=True)


def to_jpeg_bytes(image: Tensor, quality: int) -> bytes:
    """(3, H, W) in [0, 1] as a baseline JPEG (libjpeg quality 1..100) without chroma subsampling, EXIF or profile."""
    stream = io.BytesIO()
    Image.fromarray(_to_samples(image, 8)).save(stream, "JPEG", quality=quality, subsampling=0)
    return stream.getvalue()


def from_png_bytes(content: bytes) -> Tensor:
    """Decode `to_png_bytes`: float32 (3, H, W) in [0, 1].

    Raises:
        ValueError: the bytes are not a complete RGB PNG.
    """
    try:
        samples = imagecodecs.png_decode(content)
    except imagecodecs.PngError as error:
        raise ValueError(f"expected a complete PNG, found {len(content)} bytes that do not decode: {error}") from error
    if samples.ndim != 3 or samples.shape[2] != 3:
        raise ValueError(f"expected an RGB PNG, found samples of shape {samples.shape}")
    return _to_tensor(samples)


def quantize(image: Tensor) -> Tensor:
    """Round to the 8-bit levels a stored picture has: what `from_png_bytes(to_png_bytes(image))` gives."""
    return (image.clamp(0, 1) * 255).round() / 255


def _format_of(name: str) -> str:
    suffix = Path(name).suffix
    file_format = FORMAT_OF_SUFFIX.get(suffix.lower())
    if file_format is None:
        found = suffix or "none"
        raise ValueError(f"{name}: expected a name ending in {', '.join(FORMAT_OF_SUFFIX)}, found {found}")
    return file_format


def srgb_samples(raw: RawImage, file: PictureFile) -> np.ndarray:
    """(H, W, 3) uint8 or uint16 sRGB, not yet upright; an unusable profile is logged and taken for sRGB."""
    if raw.icc:
        try:
            return profiles.to_srgb(raw.colour, raw.space, raw.icc)
        except profiles.PROFILE_ERRORS as error:
            log.warning("%s: unusable colour profile, the samples are taken as sRGB: %s", file, error)
    if raw.space == "GRAY":
        return np.repeat(raw.colour[..., None], 3, axis=-1)
    if raw.space == "CMYK":
        top = np.iinfo(raw.colour.dtype).max
        ink = raw.colour.astype(np.float32) / top
        return np.rint((1 - ink[..., :3]) * (1 - ink[..., 3:]) * top).astype(raw.colour.dtype)
    return raw.colour


def upright(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the EXIF orientation (CIPA DC-008, tag 274) of (H, W[, C]) samples; a view of them."""
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    return samples


def _to_tensor(samples: np.ndarray) -> Tensor:
    """(H, W, C) uint8 or uint16 -> float32 (C, H, W) in [0, 1]."""
    top = np.float32(np.iinfo(samples.dtype).max)
    return torch.from_numpy(np.ascontiguousarray(samples.transpose(2, 0, 1)).astype(np.float32) / top)


def _to_samples(image: Tensor, bits: int) -> np.ndarray:
    """(C, H, W) in [0, 1] -> (H, W, C) uint8 or uint16, rounded to nearest."""
    top = 2**bits - 1
    levels = (image.detach().cpu().clamp(0, 1) * top).round().permute(1, 2, 0).contiguous().numpy()
    return levels.astype(np.uint16 if bits == 16 else np.uint8)
