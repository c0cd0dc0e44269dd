"""The file-format layer under `components.imaging.photo`: decoders and encoders of sample arrays.

JPEG is in `components.imaging.jpeg`, PNG in `components.imaging.png`, HEIC and camera raw in
`components.imaging.camera`, TIFF of 16 bits and what goes with every TIFF in `components.imaging.tiff`; imagecodecs
decodes AVIF of more than 8 bits, and Pillow the rest. Colours that a file names without a profile become one in
`components.imaging.profiles`.

Arrays here are numpy, (H, W, C) or (H, W), in the file's own samples (uint8 or uint16).
"""

import io
import logging
from dataclasses import replace
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image, UnidentifiedImageError

from components.imaging import camera, jpeg, png, profiles, tiff
from components.imaging.boxes import Boxes
from components.imaging.directories import check_directories
from components.imaging.formats import Beside, FormatError, Header, RawImage, check_size, split_alpha
from components.imaging.metadata import EXIF_PREFIX, exif_orientation, says_adobe_rgb, tiff_exif, without_orientation
from components.imaging.source import Source

log = logging.getLogger(__name__)

_OTHERS = ("WEBP", "BMP", "GIF")
"""Formats that Pillow reads without help."""


def read_header(source: Source, max_pixels: int) -> Header:
    """Read size, mode and bit depth. Raises `FormatError` or whatever the decoder raises on a corrupt file."""
    with source.open() as file:
        start = file.read(64)
    if not start:
        raise FormatError("the file is empty (0 bytes)")
    is_tiff = start[:4] in tiff.SIGNATURES
    if is_tiff:
        with source.open() as file:
            check_directories(file)
    if camera.is_raw(source, start) or (is_tiff and camera.holds_raw(source)):
        return camera.raw_header(source, max_pixels)
    if camera.is_heic(start):
        return camera.heic_header(source, max_pixels)
    if is_tiff:
        header = tiff.tiff_header(source)
    elif start.startswith(jpeg.SIGNATURE):
        header = jpeg.jpeg_header(source)
    elif start.startswith(png.SIGNATURE):
        header = _png_header(source)
    elif camera.is_avif(start):
        header = _avif_header(source)
    else:
        with source.open() as file, Image.open(file, formats=_OTHERS) as image:
            check_size(image.width, image.height, max_pixels)
            orientation = exif_orientation(_exif(image), _xmp(image))
            header = Header(image.width, image.height, str(image.format), image.mode, 8, orientation, _frames(image))
    check_size(header.width, header.height, max_pixels)
    return header


def read_samples(source: Source, header: Header) -> RawImage:
    """Decode the file completely; a truncated file is an error. Raises whatever the decoder raises."""
    if header.format == "RAW":
        return camera.raw_samples(source, header)
    if header.pictures > 1:
        log.warning(
            "%s: it holds %d pictures, of which the first is taken and the others are not", source, header.pictures
        )
    if header.format == "HEIF":
        image, points = camera.heic_samples(source, header)
    elif header.format == "TIFF":
        image, points = _tiff_image(source, header), None
    elif header.format == "JPEG":
        image, points = _jpeg_image(source, header), None
    elif header.format == "PNG":
        image, points = _png_image(source, header)
    elif header.format == "AVIF":
        image, points = _avif_image(source, header)
    else:
        image, points = _other_image(source, header), None
    if image.icc is None and header.format in ("JPEG", "TIFF") and image.space == "RGB" and says_adobe_rgb(image.exif):
        return replace(image, icc=profiles.adobe_rgb_profile())
    return image if image.icc or points is None else _by_code_points(image, points, str(source))


def _by_code_points(image: RawImage, points: tuple[int, int], name: str) -> RawImage:
    """A picture whose colours are told by ITU-T H.273's numbers, in the profile that says the same; HDR becomes SDR."""
    primaries, transfer = points
    profile = profiles.profile_of(primaries, transfer)
    if not profiles.is_hdr(transfer):
        return replace(image, icc=profile if image.space == "RGB" else None)
    log.warning("%s: an HDR picture, which becomes SDR as by ITU-R BT.2390", name)
    colour = image.colour if image.space == "RGB" else np.repeat(image.colour[..., None], 3, axis=-1)
    alpha = image.alpha
    if alpha is not None and alpha.dtype == np.uint8:
        alpha = alpha.astype(np.uint16) * 257
    return replace(image, colour=profiles.to_sdr(colour, transfer), space="RGB", alpha=alpha, icc=profile)


def _tiff_image(source: Source, header: Header) -> RawImage:
    if header.bit_depth == 16 or not tiff.is_for_pillow(source):
        return tiff.tiff_samples(source, header)
    with source.open() as file, Image.open(file, formats=["TIFF"]) as image:
        icc = image.info.get("icc_profile") or None
        image.load()
        if image.mode == "P" and (palette := tiff.short_palette(source)):
            image.putpalette(palette)
        colour, space, alpha = _pillow_samples(image)
    header = replace(header, orientation=1)  # Pillow has already turned the pixels upright
    return RawImage(
        colour, space, alpha, header, tiff_exif(source), icc, tiff.tiff_xmp(source), beside=tiff.beside(source)
    )


def _jpeg_image(source: Source, header: Header) -> RawImage:
    samples, segments, beside = jpeg.jpeg_samples(source, header)
    space = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}[header.mode]
    return RawImage(samples, space, None, header, segments.exif, segments.icc, segments.xmp, beside=beside)


def _png_header(source: Source) -> Header:
    with source.open() as file:
        chunks = png.read_chunks(file)
    with Image.open(io.BytesIO(chunks.head), formats=["PNG"]) as image:
        depth = 16 if chunks.found[b"IHDR"][8] == 16 else 8
        orientation = exif_orientation(chunks.exif, chunks.xmp)
        return Header(image.width, image.height, "PNG", image.mode, depth, orientation, _frames(image))


def _png_image(source: Source, header: Header) -> tuple[RawImage, tuple[int, int] | None]:
    content = source.read_bytes()
    chunks, points = png.read_chunks(io.BytesIO(content)), None
    content = png.pixels_only(content)
    if header.bit_depth == 16:
        samples = imagecodecs.png_decode(content)
        space = "GRAY" if samples.ndim == 2 or samples.shape[2] < 3 else "RGB"
        colour, alpha = split_alpha(samples, colours=1 if space == "GRAY" else 3)
    else:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.load()
            colour, space, alpha = _pillow_samples(image)
    icc = None
    if (points := chunks.code_points) is None:
        icc = chunks.profile if space == "RGB" or b"iCCP" in chunks.found else None
    return RawImage(colour, space, alpha, header, chunks.exif, icc, chunks.xmp, beside=chunks.beside), points


def _avif_header(source: Source) -> Header:
    content = source.read_bytes()
    try:
        with Image.open(io.BytesIO(content), formats=["AVIF"]) as image:
            frames, orientation = (
                _frames(image),
                exif_orientation(_exif(image)),
            )  # where Pillow puts the file's rotation
            depth = 16 if frames == 1 and Boxes(content).bit_depth > 8 else 8
            return Header(image.width, image.height, "AVIF", image.mode, depth, orientation, frames)
    except UnidentifiedImageError as error:
        raise FormatError("corrupt or truncated: its boxes break the rules of AVIF, or some are missing") from error


def _avif_image(source: Source, header: Header) -> tuple[RawImage, tuple[int, int] | None]:
    """Decode the first picture; 10 and 12 bits, of which Pillow keeps 8, are widened to the full range of 16.

    Of an animation Pillow's 8 bits are taken: imagecodecs aborts the process on one.
    """
    content = source.read_bytes()
    boxes = Boxes(content)
    boxes.check_whole()
    beside = Beside(video=boxes.video)
    with Image.open(io.BytesIO(content), formats=["AVIF"]) as image:
        icc, exif, xmp = image.info.get("icc_profile") or None, _exif(image), _xmp(image)
        if header.bit_depth == 8:
            image.load()
            colour, space, alpha = _pillow_samples(image)
            return RawImage(colour, space, alpha, header, exif, icc, xmp, beside=beside), boxes.code_points
    samples = imagecodecs.avif_decode(content)
    if samples.shape[:2] != (header.height, header.width) or samples.dtype != np.uint16:
        expected = f"{header.width}x{header.height} pixels of 16 bits"
        raise FormatError(f"the header promises {expected}, the data has {samples.shape} of {samples.dtype}")
    samples = np.rint(samples * np.float32(65535 / (2**boxes.bit_depth - 1))).clip(0, 65535).astype(np.uint16)
    colour, alpha = split_alpha(samples, colours=1 if samples.ndim == 2 or samples.shape[2] < 3 else 3)
    space = "GRAY" if colour.ndim == 2 else "RGB"
    return RawImage(colour, space, alpha, header, exif, icc, xmp, beside=beside), boxes.code_points


def _other_image(source: Source, header: Header) -> RawImage:
    with source.open() as file, Image.open(file, formats=_OTHERS) as image:
        icc = image.info.get("icc_profile") or None
        image.load()
        colour, space, alpha = _pillow_samples(image)
        beside = Beside(is_lossless=header.format == "WEBP" and _is_lossless_webp(source))
        return RawImage(colour, space, alpha, header, _exif(image), icc, _xmp(image), beside=beside)


def _is_lossless_webp(source: Source) -> bool:
    """Whether the first picture of a WebP file is a VP8L one (RFC 9649)."""
    content = source.read_bytes()
    lossless, lossy = content.find(b"VP8L"), content.find(b"VP8 ")
    return lossless >= 0 and not 0 <= lossy < lossless


def _exif(image: Image.Image) -> bytes | None:
    exif = image.info.get("exif")
    return exif.removeprefix(EXIF_PREFIX) or None if exif else None


def _xmp(image: Image.Image) -> bytes | None:
    return image.info.get("xmp") or None


def _frames(image: Image.Image) -> int:
    """Pictures in a file; 1 where they cannot be counted, since the first alone is read."""
    try:
        return int(getattr(image, "n_frames", 1))
    except (EOFError, OSError, SyntaxError, ValueError):
        return 1


def encode(
    samples: np.ndarray,
    file_format: str,
    icc: bytes | None = None,
    exif: bytes | None = None,
    xmp: bytes | None = None,
    quality: int = 95,
    beside: Beside | None = None,
) -> bytes:
    """(H, W, 3|4) samples as a file: uint16 ones for PNG, TIFF and HEIF only, four channels not for JPEG.

    EXIF and XMP are written as they are; what does not fit a JPEG is left out, with a warning. What is ``beside`` is
    written where the format has a place for it.
    """
    if file_format == "PNG":
        return png.encode_png(samples, icc, exif, xmp, beside=beside)
    if file_format == "TIFF":
        return tiff.encode_tiff(samples, samples.shape[2] == 4, icc, exif, xmp, beside)
    if file_format == "HEIF":
        return camera.encode_heic(samples, icc, exif, xmp, quality) + ((beside and beside.video) or b"")
    if file_format == "JPEG":
        return jpeg.encode_jpeg(samples, icc, exif, xmp, quality, beside)
    options: dict[str, Any] = {"quality": quality, "icc_profile": icc}
    if file_format == "WEBP" and beside is not None and beside.is_lossless:
        options |= {"lossless": True, "quality": 75, "exact": True}  # the quality is the effort then
    if exif and file_format == "AVIF":  # Pillow writes a block that tells an orientation anew, in ASCII alone
        options["exif"] = without_orientation(exif)
    elif exif:
        options["exif"] = EXIF_PREFIX + exif
    if xmp:
        options["xmp"] = xmp
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(samples)).save(stream, file_format, **options)
    if file_format == "AVIF" and beside is not None and beside.video:
        stream.write(beside.video)
    return stream.getvalue()


def _pillow_samples(image: Image.Image) -> tuple[np.ndarray, str, np.ndarray | None]:
    """8-bit samples, colour space and alpha of a loaded Pillow image."""
    mode = image.mode
    if mode in ("P", "PA") or "transparency" in image.info:
        image = image.convert("RGBA" if mode == "PA" or "transparency" in image.info else "RGB")
    elif mode == "1":
        image = image.convert("L")
    elif mode == "YCbCr":
        image = image.convert("RGB")
    elif mode not in ("L", "LA", "RGB", "RGBA", "CMYK"):
        raise FormatError(f"colour mode {mode}: save it as greyscale, RGB or CMYK")
    samples = np.asarray(image)
    if image.mode == "CMYK":
        return samples, "CMYK", None
    colour, alpha = split_alpha(samples, colours=1 if image.mode in ("L", "LA") else 3)
    return colour, "GRAY" if colour.ndim == 2 else "RGB", alpha
