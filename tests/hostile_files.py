"""Files that were made to do harm: sound ones damaged from a seed, and handmade lies, bombs and polyglots."""

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pillow_heif
import tifffile
from PIL import ExifTags, Image

from tests.raw_files import write_dng

_EXTREMES = (0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0, 1, 0x00FFFFFF, 0xFFFF0000, 0x10000)
_PNG = b"\x89PNG\r\n\x1a\n"


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], axis=-1).astype(np.uint8)


def exif_block() -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Orientation] = "Contax", 6
    exif[ExifTags.Base.XResolution] = exif[ExifTags.Base.YResolution] = 300.0
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber] = 2.8
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = bytes(200)
    exif.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    return exif.tobytes()


def sound_files(folder: Path) -> dict[str, bytes]:
    """One small sound file of every format, with EXIF, profile and XMP where it has them."""
    image = Image.fromarray(picture())
    exif, icc = exif_block(), imagecodecs.cms_profile("adobergb")
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
    files = {}
    for name, more in {
        "a.jpg": {"xmp": xmp},
        "progressive.jpg": {"progressive": True},
        "a.png": {},
        "a.webp": {"xmp": xmp},
        "a.avif": {},
        "a8.tif": {"compression": "tiff_lzw"},
    }.items():
        image.save(folder / name, icc_profile=icc, **({} if name.endswith("tif") else {"exif": exif}), **more)
    image.save(folder / "a.gif")
    image.save(folder / "a.bmp")
    image.convert("CMYK").save(folder / "cmyk.jpg")
    deep = picture().astype(np.uint16) * 257
    (folder / "deep.avif").write_bytes(imagecodecs.avif_encode(deep >> 6, level=90, bitspersample=10))
    (folder / "deep.png").write_bytes(imagecodecs.png_encode(deep))
    tifffile.imwrite(folder / "deep.tif", deep, photometric="rgb", compression="zlib", iccprofile=icc)
    heif = pillow_heif.from_bytes("RGB", (64, 48), picture().tobytes())
    heif.info["icc_profile"] = icc
    heif.save(folder / "a.heic", exif=exif)
    write_dng(folder / "a.dng", 1)
    for path in sorted(folder.iterdir()):
        files[path.name] = path.read_bytes()
    return files


def damaged(files: dict[str, bytes], seed: int, each: int = 14) -> Iterator[tuple[str, bytes]]:
    """``each`` damaged copies of every file: cut, with bytes changed, numbers made extreme, or pieces moved.

    Most damage is done in the first part, where headers and metadata are. The same seed gives the same files.
    """
    generator = random.Random(seed)
    for name, content in files.items():
        for number in range(each):
            data = bytearray(content)
            head = max(16, min(len(data), 1500))
            kind = number % 5
            if kind == 0:
                del data[generator.randrange(1, len(data)) :]
            elif kind == 1:
                for _ in range(generator.randint(1, 8)):
                    data[generator.randrange(head)] = generator.randrange(256)
            elif kind == 2:
                for _ in range(generator.randint(1, 3)):
                    order = generator.choice((">I", "<I", ">H", "<H"))
                    value = generator.choice(_EXTREMES) & (0xFFFF if order[1] == "H" else 0xFFFFFFFF)
                    struct.pack_into(order, data, generator.randrange(4, head - 4), value)
            elif kind == 3:
                for _ in range(generator.randint(1, 40)):
                    data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
            else:
                start, size = generator.randrange(len(data)), generator.randint(1, 200)
                piece = data[start : start + size]
                where = generator.randrange(len(data))
                data[where:where] = piece * generator.randint(1, 20)
            yield f"{number:02d}-{name}", bytes(data)


def crafted(files: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Handmade attacks, by name."""
    yield from _bombs()
    yield from _lies(files)
    yield from _metadata(files)
    yield from _polyglots(files)


def _png(width: int, height: int, depth: int, kind: int, data: bytes, *chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return _PNG + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _bombs() -> Iterator[tuple[str, bytes]]:
    zeros = zlib.compress(bytes(2**25), 9)
    yield "bomb-1bit.png", _png(60_000, 60_000, 1, 0, zeros)
    yield "bomb-16bit.png", _png(50_000, 50_000, 16, 2, zeros)
    yield "bomb-more-data-than-picture.png", _png(8, 8, 8, 2, zeros)
    yield "bomb-icc.png", _png(8, 8, 8, 2, zlib.compress(bytes(8 * 25)), chunk(b"iCCP", b"x\0\0" + zeros))
    yield "bomb-text.png", _png(8, 8, 8, 2, zlib.compress(bytes(8 * 25)), chunk(b"zTXt", b"x\0\0" + zeros) * 20)
    yield (
        "bomb-itxt.png",
        _png(8, 8, 8, 2, zlib.compress(bytes(8 * 25)), chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zeros)),
    )
    for name, bits in (("bomb-strip-8.tif", 8), ("bomb-strip-16.tif", 16)):
        yield name, _tiff(64, 64, bits, zeros, compression=8)
    yield "bomb-lzw.tif", _tiff(30_000, 30_000, 8, b"\x80\x00" * 100, compression=5)
    stream = io.BytesIO()
    frame = Image.new("P", (500, 500))
    frame.save(stream, "GIF", save_all=True, append_images=[frame] * 200)
    yield "bomb-frames.gif", stream.getvalue()
    yield "bomb-screen.gif", b"GIF89a" + struct.pack("<HH", 65535, 65535) + stream.getvalue()[10:]


def _tiff(width: int, height: int, bits: int, data: bytes, compression: int = 1, **more: int) -> bytes:
    """A little-endian RGB TIFF with one strip; ``more`` overrides tags by number, as t273=0."""
    tags = {
        256: (4, width), 257: (4, height), 258: (3, bits), 259: (3, compression), 262: (3, 2), 273: (4, 8),
        277: (3, 3), 278: (4, height), 279: (4, len(data)),
    }  # fmt: skip
    for name, value in more.items():
        tags[int(name[1:])] = (4, value)
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in sorted(tags.items()))
    offset = 8 + len(data)
    return struct.pack("<2sHI", b"II", 42, offset) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def _lies(files: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    jpeg = files["a.jpg"]
    frame = jpeg.index(b"\xff\xc0") + 5
    for height, width in ((65535, 65535), (0, 64), (48, 0), (65500, 64), (49, 64), (4000, 4000)):
        yield f"frame-{height}x{width}.jpg", jpeg[:frame] + struct.pack(">HH", height, width) + jpeg[frame + 4 :]
    yield "components.jpg", jpeg[: frame + 4] + b"\xff" + jpeg[frame + 5 :]
    for width, height in ((2**31 - 1, 2**31 - 1), (0, 0), (2**31 - 1, 1), (1, 2**31 - 1), (2**32 - 1, 1)):
        yield f"size-{width}x{height}.png", _png(width, height, 8, 2, zlib.compress(bytes(100)))
    yield "depth-3.png", _png(8, 8, 3, 2, zlib.compress(bytes(100)))
    yield "no-palette.png", _png(8, 8, 8, 3, zlib.compress(bytes(100)))
    yield "huge-chunk.png", _PNG + struct.pack(">I", 0xFFFFFFF0) + b"IHDR" + bytes(50)
    data = bytes(64 * 48 * 3)
    lies = {
        "samples": {"t277": 65535},
        "planes": {"t32997": 60_000},
        "strip-outside": {"t273": 2**31},
        "strip-size": {"t279": 2**32 - 1},
        "rows": {"t278": 2**32 - 1},
        "tile": {"t322": 2**31 - 16, "t323": 2**31 - 16, "t324": 8, "t325": 100},
        "width": {"t256": 2**32 - 1},
        "orientation": {"t274": 99},
        "planar": {"t284": 2},
        "photometric": {"t262": 32803},
    }
    for name, change in lies.items():
        for bits in (8, 16):
            yield f"{name}-{bits}.tif", _tiff(64, 48, bits, data * (bits // 8), **change)
    yield "no-bits.tif", _tiff(64, 48, 0, data)
    directory = struct.pack("<H", 1) + struct.pack("<HHII", 330, 4, 1, 8) + struct.pack("<I", 8)
    yield "directory-loop.tif", b"II*\0\x08\0\0\0" + directory
    yield "endless-directory.tif", b"II*\0\x08\0\0\0\xff\xff" + bytes(64)
    webp = bytearray(files["a.webp"])
    webp[24:30] = b"\xff" * 6
    yield "canvas.webp", bytes(webp)
    yield "size.bmp", files["a.bmp"][:18] + struct.pack("<ii", -(2**31), -(2**31)) + files["a.bmp"][26:]
    heic = files["a.heic"]
    spatial = heic.index(b"ispe") + 8
    for width, height in ((2**31, 2**31), (0, 0), (40_000, 40_000), (63, 47)):
        yield f"extent-{width}.heic", heic[:spatial] + struct.pack(">II", width, height) + heic[spatial + 8 :]
    yield "box-size.heic", b"\xff\xff\xff\xff" + heic[4:]
    yield "nested.heic", heic[:16] + struct.pack(">I4s", 8, b"meta") * 5000
    raw = files["a.dng"]
    for tag, value in ((256, 2**31), (257, 65535), (256, 0), (273, 2**31), (258, 99)):
        where = raw.index(struct.pack("<H", tag), 8) + 8
        yield f"tag-{tag}-{value}.dng", raw[:where] + struct.pack("<I", value) + raw[where + 4 :]


def _metadata(files: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    image = Image.fromarray(picture())

    def with_blocks(suffix: str, **blocks: bytes) -> bytes:
        stream = io.BytesIO()
        image.save(stream, {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[suffix], **blocks)
        return stream.getvalue()

    tiff = b"II*\0\x08\0\0\0"  # the first directory follows
    pointers = struct.pack("<HHIIHHII", 34665, 4, 1, 8, 34853, 4, 1, 8)
    path = b"../../../../etc/cron.d/evil" + bytes(40)
    exifs = {
        "loop": tiff + b"\x02\0" + pointers + b"\x08\0\0\0",
        "outside": b"II*\0\xff\xff\xff\x7f",
        "count": b"MM\0*\0\0\0\x08\xff\xff" + bytes(40),
        "huge-value": b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 270, 2, 2**32 - 1, 0) + bytes(4),
        "zero-division": b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 282, 5, 1, 26) + bytes(20),
        "text": b"hello world",
        "names": tiff + b"\x01\0" + struct.pack("<HHII", 269, 2, 60, 26) + bytes(4) + path,
    }
    profile = imagecodecs.cms_profile("adobergb")
    iccs = {
        "random": bytes(range(256)) * 4,
        "short": profile[:60],
        "size": b"\xff\xff\xff\xff" + profile[4:],
        "tags": profile[:128] + b"\xff\xff\xff\xff" + profile[132:],
        "grey": profile[:16] + b"GRAY" + profile[20:],
        "lab": profile[:16] + b"Lab " + profile[20:],
        "curve": profile.replace(b"curv\0\0\0\0\0\0\0\x01", b"curv\0\0\0\0\xff\xff\xff\xff"),
    }
    laughs = b"<!DOCTYPE x [<!ENTITY a 'ha'>"
    for before, after in zip("abcdefghi", "bcdefghij", strict=True):
        laughs += f"<!ENTITY {after} '{f'&{before};' * 8}'>".encode()
    xmps = {
        "laughs": laughs + b"]><x:xmpmeta xmlns:x='adobe:ns:meta/'>&j;</x:xmpmeta>",
        "entity": b"<!DOCTYPE x [<!ENTITY f SYSTEM 'file:///etc/passwd'>]><x>&f;</x>",
        "binary": bytes(range(256)) * 100,
        "orientation": b'tiff:Orientation="' * 3000,
    }
    for suffix in ("jpg", "png", "webp"):
        for name, block in exifs.items():
            yield f"exif-{name}.{suffix}", with_blocks(suffix, exif=b"Exif\0\0" + block)
        for name, block in iccs.items():
            yield f"icc-{name}.{suffix}", with_blocks(suffix, icc_profile=block)
        if suffix != "png":
            for name, block in xmps.items():
                yield f"xmp-{name}.{suffix}", with_blocks(suffix, xmp=block)


def _polyglots(files: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../../evil.txt", b"evil")
    yield "zip-behind.jpg", files["a.jpg"] + archive.getvalue()
    yield "zip-named.jpg", archive.getvalue()
    yield "jpeg-behind-zip.png", archive.getvalue() + files["a.jpg"]
    yield "html.jpg", b"<html><script>alert(1)</script>" + files["a.jpg"]
    yield "pdf.png", b"%PDF-1.7\n" + files["a.png"]
    yield "postscript.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) (r) file\n"
    yield "svg.png", b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"
    yield "script.jpg", b"push graphic-context\nfill 'url(https://127.0.0.1/\"|touch \"/tmp/evil)'\n"
    yield "png-as.jpg", files["a.png"]
    yield "jpeg-as.dng", files["a.jpg"]
    yield "tiff-as.nef", files["a8.tif"]
    yield "gif-as.heic", files["a.gif"]
    yield "pickle.png", b"\x80\x04cos\nsystem\n(S'touch /tmp/evil'\ntR."
    yield "two-pictures.jpg", files["a.jpg"] + files["cmyk.jpg"]
    yield "elf.tif", b"\x7fELF" + bytes(200)
    yield "empty.jpg", b""
    yield "one-byte.png", b"\x89"
