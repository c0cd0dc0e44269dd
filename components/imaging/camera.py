"""What cameras and phones write beside JPEG: HEIC (through libheif) and camera raw (through LibRaw).

Raw photos are developed as plainly as possible, so that the Critic judges the exposure that was taken: white balance
as shot, no automatic brightening, sRGB, 16 bits. What they look like is then the Artist's business.
"""

import io
from itertools import islice
from typing import Any

import numpy as np
import tifffile
from PIL import ExifTags

from components.imaging.boxes import Boxes
from components.imaging.formats import RAW_SUFFIXES, Beside, FormatError, Header, RawImage, check_size
from components.imaging.metadata import EXIF_PREFIX, exif_orientation, made_block
from components.imaging.raw_metadata import raw_exif
from components.imaging.source import Source, decoder_text

_RAW_SIGNATURES = (b"IIRO", b"IIRS", b"MMOR", b"IIU\x00", b"FUJIFILMCCD-RAW", b"FOVb")
_TIFF_SIGNATURES = (b"II*\x00", b"MM\x00*")
_HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"))
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_DNG_VERSION = 50706
_PHOTOMETRIC, _NEW_SUBFILE_TYPE, _MAKE = 262, 254, 271
_MOST_PAGES = 64  # that are looked at, since directories may point to themselves
_SENSORS = (32803, 34892)  # colour filters, and the same interpolated (DNG)


def is_raw(source: Source, start: bytes) -> bool:
    """Whether a file is camera raw: by its suffix, or by how it begins (``start``, 64 bytes).

    Most raw formats are TIFF files with another picture inside, which their name alone gives away.
    """
    if source.suffix in RAW_SUFFIXES or start.startswith(_RAW_SIGNATURES):
        return True
    return (start[8:10] == b"CR" and start[:4] in _TIFF_SIGNATURES) or start[4:12] == b"ftypcrx "


def is_heic(start: bytes) -> bool:
    """Whether a file that begins with ``start`` (64 bytes) is HEVC in HEIF."""
    brands = _brands(start)
    return bool(brands & _HEIC_BRANDS) and not brands & _AVIF_BRANDS


def is_avif(start: bytes) -> bool:
    """Whether a file that begins with ``start`` (64 bytes) is AV1 in HEIF."""
    return bool(_brands(start) & _AVIF_BRANDS)


def _brands(start: bytes) -> set[bytes]:
    """What a file of ISO base media says that it is (ISO/IEC 14496-12, ftyp)."""
    if start[4:8] != b"ftyp":
        return set()
    size = min(int.from_bytes(start[:4], "big"), len(start))
    return {start[offset : offset + 4] for offset in range(8, size - 3, 4)}


def heic_header(source: Source, max_pixels: int) -> Header:
    """Size after the file's own rotation, which libheif applies, and bit depth."""
    content = source.read_bytes()
    heif = _open_heif(content)
    width, height = heif.size
    check_size(width, height, max_pixels)
    orientation = 1 if Boxes(content).is_turned else exif_orientation(_heif_exif(heif))
    depth = 16 if heif.info.get("bit_depth", 8) > 8 else 8
    return Header(width, height, "HEIF", "RGBA" if heif.has_alpha else "RGB", depth, orientation, len(heif))


def heic_samples(source: Source, header: Header) -> tuple[RawImage, tuple[int, int] | None]:
    """Decode the primary picture; 10 and 12 bits are widened to the full range of 16.

    Returns:
        the picture, and the code points of its colours (ITU-T H.273) where the file tells them.

    Raises:
        FormatError: the file ends before the data of its pictures, which libheif would fill up with green.
    """
    content = source.read_bytes()
    boxes = Boxes(content)
    boxes.check_whole()
    heif = _open_heif(content)
    depth = int(heif.info.get("bit_depth", 8))
    samples = np.asarray(heif)
    if samples.shape[:2] != (header.height, header.width):
        raise FormatError(f"the header promises {header.width}x{header.height} pixels, the data has {samples.shape}")
    if samples.dtype == np.uint16:  # pillow_heif shifts 10 and 12 bits up and leaves zeros below
        top = 2**depth - 1
        samples = np.rint((samples >> (16 - depth)) * np.float32(65535 / top)).astype(np.uint16)
    colour, alpha = (samples, None) if samples.ndim == 2 else (samples[..., :3], None)
    if samples.ndim == 3 and samples.shape[2] == 4:
        alpha = samples[..., 3]
    image = RawImage(
        colour=colour,
        space="GRAY" if colour.ndim == 2 else "RGB",
        alpha=alpha,
        header=header,
        exif=_heif_exif(heif),
        icc=heif.info.get("icc_profile") or None,
        xmp=heif.info.get("xmp") or None,
        beside=Beside(video=boxes.video),
    )
    return image, boxes.code_points


def encode_heic(samples: np.ndarray, icc: bytes | None, exif: bytes | None, xmp: bytes | None, quality: int) -> bytes:
    """(H, W, 3|4) uint8 samples as 8-bit HEIC, uint16 ones as 10-bit HEIC (x265, 4:2:0, which phones can show)."""
    import pillow_heif

    height, width, channels = samples.shape
    mode = ("RGB" if channels == 3 else "RGBA") + (";16" if samples.dtype == np.uint16 else "")
    heif = pillow_heif.from_bytes(mode, (width, height), np.ascontiguousarray(samples).tobytes())
    if icc:
        heif.info["icc_profile"] = icc
    stream = io.BytesIO()
    heif.save(stream, quality=quality, exif=EXIF_PREFIX + exif if exif else None, xmp=xmp)
    return stream.getvalue()


def raw_header(source: Source, max_pixels: int) -> Header:
    """Size of the developed picture, upright."""
    with _open_raw(source) as raw:
        sizes = raw.sizes
        check_size(max(sizes.raw_width, sizes.width), max(sizes.raw_height, sizes.height), max_pixels)
        _, _, width, height = _default_crop(source) or (0, 0, sizes.width, sizes.height)
        if sizes.flip & 4:
            width, height = height, width
        return Header(width, height, "RAW", "RGB", 16, orientation=1)


def raw_samples(source: Source, header: Header) -> RawImage:
    """Develop a raw file to 16-bit sRGB: white balance as shot, no automatic brightening, highlights clipped."""
    import rawpy

    with _open_raw(source) as raw:
        try:
            flip = raw.sizes.flip  # before user_flip overrides it
            samples = raw.postprocess(
                use_camera_wb=True,
                no_auto_bright=True,
                output_bps=16,
                output_color=rawpy.ColorSpace.sRGB,
                gamma=(2.4, 12.92),  # the sRGB curve, IEC 61966-2-1
                adjust_maximum_thr=0.0,  # else the brightest sample of each photo would become its white
                user_flip=0,
            )
            samples = _framed(samples, _default_crop(source), flip)
            balances = (np.asarray(raw.camera_whitebalance), np.asarray(raw.daylight_whitebalance))
            kelvin = _white_kelvin(*balances, np.asarray(raw.color_matrix))
            exif = raw_exif(source, _preview(raw)) or _known_exif(raw)
        except rawpy.LibRawError as error:
            raise FormatError(f"the raw data cannot be developed: {decoder_text(error)}") from error
    return RawImage(samples, "RGB", None, header, exif=exif, icc=None, xmp=None, white_kelvin=kelvin)


def _default_crop(source: Source) -> tuple[int, int, int, int] | None:
    """Left, top, width and height of a DNG's picture within its active area (DNG 1.4, DefaultCropOrigin and -Size).

    Developers show this part, and LibRaw all of the active area, a few pixels more on each side. None where the file
    does not say.
    """
    try:
        with source.open() as file, tifffile.TiffFile(file) as tiff:
            pages = [page for first in islice(tiff.pages, _MOST_PAGES) for page in _with_inner(first)]
            for page in pages:
                if "DefaultCropSize" in page.tags:
                    left, top = _pair_of(page.tags.valueof("DefaultCropOrigin", (0, 0)))
                    width, height = _pair_of(page.tags["DefaultCropSize"].value)
                    return left, top, width, height
    except (tifffile.TiffFileError, ZeroDivisionError, ValueError):
        pass
    return None


def _pair_of(values: tuple[int, ...]) -> tuple[int, int]:
    """Two whole numbers of a tag that holds integers or, twice as many, rationals; each tag may have its own type."""
    if len(values) == 4:
        return round(values[0] / values[1]), round(values[2] / values[3])
    first, second = values
    return round(first), round(second)


def _framed(samples: np.ndarray, crop: tuple[int, int, int, int] | None, flip: int) -> np.ndarray:
    """(H, W, 3) cropped and turned upright; ``flip`` is LibRaw's: 1 left-right, then 2 up-down, then 4 transposed."""
    if crop is not None:
        left, top, width, height = crop
        samples = samples[top : top + height, left : left + width]
    samples = samples[::-1] if flip & 2 else samples
    samples = samples[:, ::-1] if flip & 1 else samples
    return samples.swapaxes(0, 1) if flip & 4 else samples


def holds_raw(source: Source) -> bool:
    """Whether a TIFF file holds the samples of a sensor behind its picture, which is a preview, whatever its name is.

    Told by the tag that makes a TIFF a DNG, by the sensor's colour filters (TIFF/EP, ISO 12234-2,
    PhotometricInterpretation), or by LibRaw where the file's first picture says of itself that it is a reduced one.
    """
    try:
        with source.open() as file, tifffile.TiffFile(file) as tiff:
            first = tiff.pages[0]
            pages = _with_inner(first)
            if _DNG_VERSION in first.tags or any(page.tags.valueof(_PHOTOMETRIC) in _SENSORS for page in pages):
                return True
            is_preview = bool((first.tags.valueof(_NEW_SUBFILE_TYPE) or 0) & 1) and _MAKE in first.tags
            size = first.imagewidth * first.imagelength
        if not is_preview:
            return False
        with _open_raw(source) as raw:
            return bool(raw.sizes.width * raw.sizes.height > size)
    except (
        Exception
    ):  # tifffile raises anything on a damaged file, which is then read, and refused, as what it says it is
        if source.error is not None:
            raise
        return False


def _with_inner(page: Any) -> list[Any]:
    """A page of a TIFF file and those within it."""
    return [page, *islice(page.pages or (), _MOST_PAGES)]


def _open_heif(content: bytes) -> Any:
    import pillow_heif

    return pillow_heif.open_heif(content, convert_hdr_to_8bit=False)


def _heif_exif(heif: Any) -> bytes | None:
    exif = heif.info.get("exif")
    return exif.removeprefix(EXIF_PREFIX) or None if exif else None


def _open_raw(source: Source) -> Any:
    import rawpy

    try:
        with source.open() as file:
            return rawpy.imread(file)
    except rawpy.LibRawError as error:
        raise FormatError(f"not a raw photo that LibRaw knows: {decoder_text(error)}") from error


def _white_kelvin(as_shot: np.ndarray, daylight: np.ndarray, to_srgb: np.ndarray) -> float | None:
    """Correlated colour temperature of the white balance as shot, or None when the camera did not say.

    The camera sees grey in the light as shot at 1/as_shot, and ``to_srgb`` takes what it sees, balanced for D65 by
    ``daylight``, to linear sRGB. Source of the temperature: McCamy 1992, equation 1.

    Args:
        as_shot, daylight: multipliers of red, green and blue (further entries are not used).
        to_srgb: (3, 3 or 4) LibRaw's rgb_cam.
    """
    from components.photometry.colour import rgb_to_xyz_matrix

    if not ((as_shot[:3] > 0).all() and (daylight[:3] > 0).all()):
        return None
    light = to_srgb[:, :3].astype(float) @ (daylight[:3].astype(float) / as_shot[:3])
    x, y, z = rgb_to_xyz_matrix().double().numpy() @ light
    if min(x, y, z) <= 0:
        return None
    n = (x / (x + y + z) - 0.3320) / (0.1858 - y / (x + y + z))
    kelvin = 449 * n**3 + 3525 * n**2 + 6823.3 * n + 5520.33
    return float(kelvin) if 1500 <= kelvin <= 30_000 else None


def _preview(raw: Any) -> bytes | None:
    """The JPEG in a raw file, or None."""
    import rawpy

    try:
        thumbnail = raw.extract_thumb()
    except rawpy.LibRawError:
        return None
    return bytes(thumbnail.data) if thumbnail.format == rawpy.ThumbFormat.JPEG else None


def _known_exif(raw: Any) -> bytes | None:
    """What LibRaw itself knows of the shot, as an EXIF block."""
    other = raw.other
    values = {
        ExifTags.Base.ISOSpeedRatings: int(other.iso_speed),
        ExifTags.Base.ExposureTime: float(other.shutter_speed),
        ExifTags.Base.FNumber: float(other.aperture),
        ExifTags.Base.FocalLength: float(other.focal_length),
    }
    shot = {int(tag): value for tag, value in values.items() if value > 0}
    return made_block({}, {int(ExifTags.IFD.Exif): shot}) if shot else None
