"""When and with which camera a photo was taken, from its EXIF: what tells the photos of one burst or bracket."""

import struct
from datetime import datetime
from typing import NamedTuple

from PIL import ExifTags, Image

_TIME = "%Y:%m:%d %H:%M:%S"
_EPOCH = datetime(1970, 1, 1)


class Shot(NamedTuple):
    """One release of the shutter: camera, and when the exposure began and ended, in seconds of the camera's clock."""

    camera: str
    begin: float
    end: float


def shot_of(exif: Image.Exif) -> str:
    """Camera, begin and end of the exposure as text that `read_shot` understands; empty where EXIF does not tell."""
    try:
        details = exif.get_ifd(ExifTags.IFD.Exif)
        text = str(details[ExifTags.Base.DateTimeOriginal]).strip("\0 ")
        begin = (datetime.strptime(text, _TIME) - _EPOCH).total_seconds()
        fraction = str(details.get(ExifTags.Base.SubsecTimeOriginal, "")).strip("\0 ")
        begin += float(f"0.{fraction}") if fraction.isdigit() else 0.0
        exposure = min(max(float(details.get(ExifTags.Base.ExposureTime, 0.0)), 0.0), 3600.0)
        names = (exif.get(ExifTags.Base.Make, ""), exif.get(ExifTags.Base.Model, ""))
    except (KeyError, ValueError, TypeError, ZeroDivisionError, OverflowError, SyntaxError, struct.error):
        return ""
    camera = " ".join(str(name).strip("\0 ") for name in names).replace("|", " ").strip()
    camera = camera.encode("utf-8", "replace").decode("utf-8")
    return f"{camera}|{begin:.2f}|{begin + exposure:.2f}" if camera else ""


def read_shot(text: str) -> Shot | None:
    """What `shot_of` wrote; None of the empty text."""
    if not text:
        return None
    camera, begin, end = text.split("|")
    return Shot(camera, float(begin), float(end))
