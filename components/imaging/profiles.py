"""ICC colour profiles, by Little CMS: samples of a file into sRGB, and edited sRGB back into the file's own profile.

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

from components.imaging.formats import MAX_PROFILE

_SPACES = {"GRAY": "gray", "RGB": "rgb", "CMYK": "cmyk"}
_REMEMBERED = 64
_TOE_SLOPE, _TOE_END = np.float32(12.92), np.float32(0.0031308)  # IEC 61966-2-1
PROFILE_ERRORS = (imagecodecs.CmsError, ValueError, RuntimeError)
"""What a broken or unsuitable profile raises."""


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
