"""ICC colour profiles, by Little CMS: samples of a file into sRGB, and edited sRGB back into the file's own profile.

Some files name their colours by number instead. HEIC and AVIF (nclx) and PNG (cICP) name primaries and transfer
characteristics by the code points of ITU-T H.273, PNG also by gamma and chromaticities, and cameras name Adobe RGB in
EXIF. Each becomes the ICC profile that says the same, so that the photo is read, edited and written in its own colours.
Two curves are no display's: PQ and HLG (ITU-R BT.2100) are HDR, which no file that is written here can hold, and become
SDR by ITU-R BT.2390.

Two roads into sRGB. `to_srgb` gives 16-bit samples inside the sRGB gamut, which is what models are shown.
`to_extended` gives floats that keep colours outside of the gamut (values below 0 or above 1), so that a photo in
Display P3 or Adobe RGB that is edited and converted back by `from_extended` loses none of them.
"""

import hashlib
import struct
from collections.abc import Callable
from functools import lru_cache, wraps

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from components.imaging.formats import MAX_PROFILE, FormatError

_SPACES = {"GRAY": "gray", "RGB": "rgb", "CMYK": "cmyk"}
_REMEMBERED = 64
_TOE_SLOPE, _TOE_END = np.float32(12.92), np.float32(0.0031308)  # IEC 61966-2-1
PROFILE_ERRORS = (imagecodecs.CmsError, ValueError, RuntimeError)
"""What a broken or unsuitable profile raises."""
Chromaticities = tuple[float, float, float, float, float, float, float, float]
"""x and y of white, red, green and blue (CIE 1931)."""

SRGB: Chromaticities = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_D65, _DCI = SRGB[:2], (0.314, 0.351)
BT2020: Chromaticities = (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
DISPLAY_P3: Chromaticities = (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
ADOBE_RGB: Chromaticities = (*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_PRIMARIES: dict[int, tuple[str, Chromaticities]] = {
    9: ("BT.2020", BT2020),
    11: ("DCI-P3", (*_DCI, *DISPLAY_P3[2:])),
    12: ("Display P3", DISPLAY_P3),
}
_SRGB_PRIMARIES = (1, 2, 5, 6, 7)
"""BT.709, "unspecified", and the two of BT.601, which cameras of today name for the matrix and do not mean."""
_SRGB_CURVES = (1, 2, 6, 13, 14, 15)
"""sRGB's, "unspecified", and BT.709's camera curve, whose pictures are shown by sRGB's."""
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
_PQ, _HLG = 16, 18
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # IEC 61966-2-1
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50_XYZ = np.array([0.9642, 1.0, 0.8249])  # ICC.1:2022, 7.2.16
_SDR_WHITE, _HDR_PEAK = 203.0, 1000.0
"""cd/m2: HDR reference white (ITU-R BT.2408), which becomes SDR's white, and the display that HDR is made for."""


@lru_cache(maxsize=1)
def srgb_profile() -> bytes:
    """An sRGB ICC profile with a fixed date, so that the same photo gives the same bytes on every day."""
    profile = bytearray(imagecodecs.cms_profile("srgb"))
    profile[24:36] = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    return bytes(profile)


def _remembered(judge: Callable[[bytes], bool]) -> Callable[[bytes], bool]:
    """A judgement of profiles that is kept for the last ones: by their SHA-256, so that the profiles are not kept."""
    known: dict[bytes, bool] = {}

    @wraps(judge)
    def judged(profile: bytes) -> bool:
        digest = hashlib.sha256(profile).digest()
        if (result := known.get(digest)) is None:
            result = known[digest] = judge(profile)
            if len(known) > _REMEMBERED:
                known.pop(next(iter(known)), None)
        return result

    return judged


@_remembered
def is_srgb(profile: bytes) -> bool:
    """Whether an RGB profile maps a 9x9x9 grid of colours to sRGB within half an 8-bit step."""
    levels = np.linspace(0, 65535, 9).astype(np.uint16)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(27, 27, 3)
    return bool(np.abs(_transform(grid, profile, "rgb").astype(int) - grid.astype(int)).max() <= 128)


@_remembered
def is_two_way(profile: bytes) -> bool:
    """Whether a profile is a sound RGB profile that colours can be converted into as well as out of.

    Judged by a 5x5x5 grid of colours that has to come back within half an 8-bit step. Scanner and camera profiles
    often work in one direction only.
    """
    levels = np.linspace(0, 1, 5, dtype=np.float32)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(5, 25, 3)
    try:
        if profile_space(profile) != "RGB" or len(profile) > MAX_PROFILE:
            return False
        back = from_extended(to_extended(grid, profile), profile)
    except PROFILE_ERRORS:
        return False
    return bool(np.abs(back - grid).max() <= 0.5 / 255)


def profile_space(profile: bytes) -> str:
    """The colour space of a profile's device side: "RGB", "GRAY", "CMYK" or whatever bytes 16 to 20 say."""
    return profile[16:20].decode("latin-1").strip()


def to_srgb(samples: np.ndarray, space: str, profile: bytes) -> np.ndarray:
    """Convert (H, W[, C]) uint8|uint16 samples to (H, W, 3) uint16 sRGB by ICC profile, perceptual intent.

    Raises:
        imagecodecs.CmsError: the profile is broken. ValueError: it is for another colour space than the samples.
    """
    if len(profile) > MAX_PROFILE:
        raise ValueError(f"expected a profile of at most {MAX_PROFILE:,} bytes, found {len(profile):,}")
    if space == "GRAY" and profile_space(profile) == "RGB":
        samples, space = np.repeat(samples[..., None], 3, axis=-1), "RGB"
    if profile_space(profile) != space:
        raise ValueError(f"a {profile_space(profile)!r} profile is attached to {space} samples")
    if space == "RGB" and is_srgb(profile):
        return samples if samples.dtype == np.uint16 else samples.astype(np.uint16) * 257
    return _transform(samples, profile, _SPACES[space])


def to_extended(colours: np.ndarray, profile: bytes) -> np.ndarray:
    """Convert (H, W, 3) float32 RGB in [0, 1] to extended sRGB, float32.

    The sRGB curve continues beyond [0, 1] and, mirrored at the origin, below 0, as scRGB does (IEC 61966-2-2,
    annex B); Little CMS alone would continue its straight toe, thirteen times too steep.

    Raises:
        imagecodecs.CmsError: the profile is broken.
    """
    extended = _float_transform(colours, profile, srgb_profile())
    below = extended < 0
    linear = extended[below] / -_TOE_SLOPE
    extended[below] = -np.where(linear > _TOE_END, 1.055 * linear ** (1 / 2.4) - 0.055, -extended[below])
    return extended


def from_extended(colours: np.ndarray, profile: bytes) -> np.ndarray:
    """The inverse of `to_extended`: (H, W, 3) float32 extended sRGB to RGB of the profile, clipped to [0, 1].

    Raises:
        imagecodecs.CmsError: the profile is broken or works in one direction only.
    """
    colours = colours.copy()
    below = colours < 0
    mirrored = -colours[below]
    steep = mirrored > _TOE_SLOPE * _TOE_END
    colours[below] = -_TOE_SLOPE * np.where(steep, ((mirrored + 0.055) / 1.055) ** 2.4, mirrored / _TOE_SLOPE)
    return np.clip(_float_transform(colours, srgb_profile(), profile), 0, 1)


def _transform(samples: np.ndarray, profile: bytes, colorspace: str) -> np.ndarray:
    # At 16 bits Little CMS would resample an RGB conversion into a coarse table, wrong by 5% in saturated shadows.
    flags = imagecodecs.CMS.FLAGS.NOOPTIMIZE if samples.dtype == np.uint16 else None
    samples = np.ascontiguousarray(samples)
    return imagecodecs.cms_transform(
        samples, profile, srgb_profile(), colorspace=colorspace, outcolorspace="rgb", outdtype="u2", flags=flags
    )


def _float_transform(colours: np.ndarray, profile: bytes, target: bytes) -> np.ndarray:
    return imagecodecs.cms_transform(
        np.ascontiguousarray(colours, np.float32),
        profile,
        target,
        colorspace="rgb",
        outcolorspace="rgb",
        outdtype="f4",
    )


def is_hdr(transfer: int) -> bool:
    """Whether a transfer characteristic (ITU-T H.273) is PQ or HLG."""
    return transfer in (_PQ, _HLG)


def profile_of(primaries: int, transfer: int) -> bytes | None:
    """The ICC profile of code points (ITU-T H.273), or None where they are sRGB's; of HDR, what `to_sdr` leaves it in.

    Raises:
        FormatError: no profile says the same.
    """
    if primaries not in _PRIMARIES and primaries not in _SRGB_PRIMARIES:
        raise FormatError(f"its colours have primaries number {primaries} (ITU-T H.273): save it in sRGB or Display P3")
    name, chromaticities = _PRIMARIES.get(primaries, ("sRGB", SRGB))
    if transfer in _GAMMAS:
        return gamma_profile(_GAMMAS[transfer], chromaticities, f"{name}, gamma {_GAMMAS[transfer]:g}")
    if transfer not in _SRGB_CURVES and not is_hdr(transfer):
        raise FormatError(f"its colours have transfer curve number {transfer} (ITU-T H.273): save it with sRGB's")
    if chromaticities == SRGB:
        return None
    return _profile(_SRGB_CURVE, chromaticities, name)


def adobe_rgb_profile() -> bytes:
    """A profile of Adobe RGB (1998), whose curve is a power of 563/256."""
    return gamma_profile(563 / 256, ADOBE_RGB, "Compatible with Adobe RGB (1998)")


@lru_cache(maxsize=8)
def gamma_profile(gamma: float, chromaticities: Chromaticities, name: str) -> bytes:
    """An ICC profile of an RGB space whose light is the sample to the power of ``gamma``.

    Raises:
        FormatError: the chromaticities span no space.
    """
    return _profile((gamma,), chromaticities, name)


@lru_cache(maxsize=8)
def _profile(curve: tuple[float, ...], chromaticities: Chromaticities, name: str) -> bytes:
    """A display profile of matrix and curve, version 4.3 (ICC.1:2022): ``curve`` has the parameters of clause 10.18."""
    columns = _to_d50(chromaticities)
    text = name.encode("utf-16-be")
    description = b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(text), 28) + text
    rights = "No copyright, use freely".encode("utf-16-be")
    copyright_ = b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(rights), 28) + rights
    kind = 0 if len(curve) == 1 else 3
    parameters = b"para" + bytes(4) + struct.pack(">HH", kind, 0) + b"".join(map(_fixed, curve))
    elements = {
        b"desc": description,
        b"cprt": copyright_,
        b"wtpt": _xyz(_D50_XYZ),
        b"rXYZ": _xyz(columns[:, 0]),
        b"gXYZ": _xyz(columns[:, 1]),
        b"bXYZ": _xyz(columns[:, 2]),
        b"rTRC": parameters,
        b"gTRC": parameters,
        b"bTRC": parameters,
    }
    offset, table, data = 132 + 12 * len(elements), b"", b""
    placed: dict[bytes, tuple[int, int]] = {}
    for tag, element in elements.items():
        if element not in placed:
            placed[element] = (offset + len(data), len(element))
            data += element + bytes(-len(element) % 4)
        table += tag + struct.pack(">II", *placed[element])
    date = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)  # fixed, so that the same photo gives the same bytes on every day
    head = struct.pack(">I4s4s4s4s4s", offset + len(data), bytes(4), b"\x04\x30\0\0", b"mntr", b"RGB ", b"XYZ ") + date
    head += b"acsp" + bytes(28) + b"".join(map(_fixed, _D50_XYZ)) + bytes(48)
    return head + struct.pack(">I", len(elements)) + table + data


def to_sdr(samples: NDArray[np.uint8] | NDArray[np.uint16], transfer: int) -> NDArray[np.uint16]:
    """(H, W, 3) PQ or HLG samples as SDR ones with sRGB's curve in the same primaries.

    HLG is shown as on a display of 1000 cd/m2 (BT.2100, system gamma 1.2). Both are taken from a display of that peak
    to one whose white is 203 cd/m2 by the tone curve of BT.2390-11, clause 5.4, on the largest of the three colours, so
    that hues stay.
    """
    top = np.iinfo(samples.dtype).max
    levels = np.arange(top + 1, dtype=np.float64) / top
    light = (_pq_light(levels) if transfer == _PQ else _hlg_light(levels)).astype(np.float32)
    result = np.empty(samples.shape, np.uint16)
    for row, codes in zip(result, samples, strict=True):
        nits = light[codes]
        if transfer == _HLG:
            luminance = nits @ np.array([0.2627, 0.6780, 0.0593], np.float32)
            nits = nits * (_HDR_PEAK * np.maximum(luminance, 1e-6) ** 0.2)[:, None]
        peak = nits.max(axis=1)
        shown = _tone_mapped(peak.astype(np.float64)) / _SDR_WHITE
        linear = nits * (shown / np.maximum(peak, 1e-6))[:, None]
        curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)
        row[:] = np.rint(curve.clip(0, 1) * 65535)
    return result


def _pq_light(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """cd/m2 of PQ values (SMPTE ST 2084, equation 4.1)."""
    power = levels ** (32 / 2523)
    return 10_000 * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (16384 / 2610)


def _pq_levels(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    power = (np.maximum(nits, 0) / 10_000) ** (2610 / 16384)
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** (2523 / 32)


def _hlg_light(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scene light in [0, 1] of HLG values (BT.2100, table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(levels <= 0.5, levels**2 / 3, (np.exp((levels - c) / a) + b) / 12)


def _tone_mapped(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    """cd/m2 on a display of `_SDR_WHITE` for those on one of `_HDR_PEAK` (BT.2390-11, clause 5.4)."""
    most = float(_pq_levels(np.array(_HDR_PEAK)))
    largest = float(_pq_levels(np.array(_SDR_WHITE))) / most
    knee = 1.5 * largest - 0.5
    level = np.minimum(_pq_levels(nits) / most, 1)
    t = (np.maximum(level, knee) - knee) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * largest
    return _pq_light(np.where(level < knee, level, spline) * most)


def _to_d50(chromaticities: Chromaticities) -> NDArray[np.float64]:
    """XYZ of the primaries, one per column, with white adapted to D50 by Bradford's matrix (ICC.1:2022, annex E)."""
    white, *primaries = [
        np.array([x / y, 1.0, (1 - x - y) / y]) if y > 0 else np.full(3, np.nan)
        for x, y in zip(chromaticities[::2], chromaticities[1::2], strict=True)
    ]
    columns = np.stack(primaries, axis=1)
    if not np.isfinite(columns).all() or not np.isfinite(white).all() or abs(np.linalg.det(columns)) < 1e-6:
        raise FormatError(f"its primaries {chromaticities} span no colour space: save it in sRGB")
    columns = columns * np.linalg.solve(columns, white)
    adapt = np.linalg.inv(_BRADFORD) @ np.diag((_BRADFORD @ _D50_XYZ) / (_BRADFORD @ white)) @ _BRADFORD
    return adapt @ columns


def _fixed(value: float) -> bytes:
    """An s15Fixed16Number."""
    return struct.pack(">i", round(float(value) * 65536))


def _xyz(values: NDArray[np.float64]) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(map(_fixed, values))
