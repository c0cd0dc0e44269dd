"""XMP packets: what they claim of the file they came in, corrected for the one they go into, all else byte for byte.

A packet may promise a film or a gain map behind the picture (Google's Motion Photo 1.0 and Ultra HDR 1.0, with the
directory of GContainer 1.0). The promise goes where the thing itself is not kept.
"""

import logging
import re
from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice

log = logging.getLogger(__name__)

_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>\s*))[2-8]")
_CAMERA = b"http://ns.google.com/photos/1.0/camera/"
_CONTAINER = b"http://ns.google.com/photos/1.0/container/"
_ITEM = b"http://ns.google.com/photos/1.0/container/item/"
_GAIN_MAPS = (b"http://ns.adobe.com/hdr-gain-map/1.0/", b"http://ns.apple.com/HDRGainMap/1.0/")
_NOTE = b"http://ns.adobe.com/xmp/note/"
_SPACE = b" \t\n\v\f\r"
_MOST_ITEMS = 100
_MOST = 2**24
"""Bytes of a packet that is looked into; a longer one is kept as it is."""


def upright_xmp(xmp: bytes) -> bytes:
    """A packet for pixels already turned upright: tiff:Orientation 1."""
    return _ORIENTATION.sub(rb"\g<1>1", xmp)


def xmp_orientation(xmp: bytes) -> int:
    """The orientation that a packet tells, 1 where it tells none."""
    found = _ORIENTATION.search(xmp)
    return int(found[0][-1:]) if found else 1


def extension(xmp: bytes) -> bytes:
    """The name of the packet that holds what did not fit this one (XMP 3, 1.1.3.1): 32 digits, or nothing."""
    return _value(xmp, _prefix(xmp, _NOTE), b"HasExtendedXMP")


def without_extension(xmp: bytes) -> bytes:
    """A packet that names no other one."""
    prefix = _prefix(xmp, _NOTE)
    return _without(xmp, prefix, rb"HasExtendedXMP") if prefix is not None else xmp


def joined(xmp: bytes, extended: bytes) -> bytes:
    """A packet with the properties of its extension beside its own."""
    begin = extended.find(b">", max(0, extended.find(b"<rdf:RDF"))) + 1
    close, end = extended.rfind(b"</rdf:RDF>"), xmp.rfind(b"</rdf:RDF>")
    if not 0 < begin <= close or b"<rdf:RDF" not in extended or end < 0:
        log.warning("the extended XMP is not written as XMP is, and is left out")
        return without_extension(xmp)
    return without_extension(xmp[:end] + extended[begin:close] + xmp[end:])


def video_length(xmp: bytes) -> int:
    """Bytes at the end of the file that are the film of a motion photo by its packet; 0 for none."""
    prefix = _prefix(xmp, _ITEM)
    for item in _items(xmp):
        if _value(item, prefix, b"Semantic") == b"MotionPhoto":
            return _number(_value(item, prefix, b"Length"))
    return _number(_value(xmp, _prefix(xmp, _CAMERA), b"MicroVideoOffset"))


def promises_gain_map(xmp: bytes) -> bool:
    """Whether a packet says that the file holds a gain map."""
    return any(_prefix(xmp, name) is not None for name in _GAIN_MAPS) or any(b"GainMap" in item for item in _items(xmp))


def without_claims(xmp: bytes, keep_video: bool) -> bytes:
    """A packet that promises no gain map and, unless the film is kept, no film."""
    if len(xmp) > _MOST:
        return xmp
    gone = [b"GainMap"] if keep_video else [b"GainMap", b"MotionPhoto"]
    prefix = _prefix(xmp, _ITEM)
    rest = 0
    for item in _items(xmp):
        semantic = _value(item, prefix, b"Semantic")
        if semantic in gone:
            xmp = xmp.replace(item, b"", 1)
        elif semantic != b"Primary":
            rest += 1
    container = _prefix(xmp, _CONTAINER)
    if container is not None and not rest:
        xmp = _without(xmp, container, rb"Directory")
    for name in _GAIN_MAPS:
        if (found := _prefix(xmp, name)) is not None:
            xmp = _without(xmp, found, rb"\w+")
    camera = _prefix(xmp, _CAMERA)
    if camera is not None and not keep_video:
        xmp = _without(xmp, camera, rb"(?:MotionPhoto|MicroVideo)\w*")
    return xmp


def _prefix(xmp: bytes, namespace: bytes) -> bytes | None:
    """The prefix that stands for a namespace, or None where it is not used."""
    found = re.search(rb"xmlns:([\w.-]+)\s*=\s*[\"']" + re.escape(namespace) + rb"[\"']", xmp)
    return found[1] if found else None


def _items(xmp: bytes) -> list[bytes]:
    """The entries of the directory of what lies behind the picture."""
    prefix = _prefix(xmp, _CONTAINER)
    if prefix is None or len(xmp) > _MOST:
        return []
    start, end = xmp.find(b"<" + prefix + b":Directory"), xmp.find(b"</" + prefix + b":Directory>")
    listed = xmp[start:end] if 0 <= start < end else b""
    return [listed[first:last] for first, last in islice(_elements(listed, rb"rdf:li"), _MOST_ITEMS)]


def _elements(text: bytes, name: bytes) -> Iterator[tuple[int, int]]:
    """Where elements whose name matches begin, with the space before them, and end; in one pass over the text."""
    ends: dict[bytes, list[int]] = {}
    for found in re.finditer(rb"</(" + name + rb")>", text):
        ends.setdefault(found[1], []).append(found.end())
    after = 0
    for found in re.finditer(rb"<(" + name + rb")\b[^<>]*>", text):
        if found.start() < after:
            continue
        end = found.end()
        if not found[0].endswith(b"/>"):
            closing = ends.get(found[1], [])
            place = bisect_right(closing, end)
            if place == len(closing):
                continue
            end = closing[place]
        start = found.start()
        while start > after and text[start - 1] in _SPACE:
            start -= 1
        yield start, end
        after = end


def _value(text: bytes, prefix: bytes | None, name: bytes) -> bytes:
    """The value of a property, written as an attribute or as an element; empty where there is none."""
    if prefix is None:
        return b""
    found = re.search(re.escape(prefix + b":" + name) + rb"(?:\s*=\s*[\"']|>)\s*([^\"'<]*)", text)
    return found[1].strip() if found else b""


def _number(digits: bytes) -> int:
    return int(digits) if digits.isdigit() and len(digits) < 16 else 0


def _without(xmp: bytes, prefix: bytes, name: bytes) -> bytes:
    """The packet without the properties whose local name matches, elements and attributes; namespaces stay declared."""
    full = re.escape(prefix) + rb":(?:" + name + rb")"
    kept, after = [], 0
    for start, end in _elements(xmp, full):
        kept.append(xmp[after:start])
        after = end
    xmp = b"".join((*kept, xmp[after:]))
    return re.sub(rb"(?<!\s)\s+" + full + rb"\s*=\s*(?:\"[^\"]*\"|'[^']*')", b"", xmp)
