"""What a file carries beside its picture, as Pillow and tifffile read it, and ExifTool where it is installed."""

import hashlib
import io
import json
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, IptcImagePlugin, PngImagePlugin

from components.imaging.formats import Beside
from components.imaging.originals import read_original, write_original
from components.imaging.photo import read_header
from components.imaging.xmp import promises_gain_map, video_length, without_claims
from tests.imaging.test_photo import exif_block, picture

ARTIST = "Žofie Æsop 写真"
KEYWORDS = "sea;海".encode("utf-16-le")
IPTC = (
    b"\x1c\x01\x5a\x00\x03\x1b%G\x1c\x02\x05\x00\x05Title\x1c\x02\x19\x00\x03sea\x1c\x02\x50"
    + struct.pack(">H", len(ARTIST.encode()))
    + ARTIST.encode()
)
VIDEO = struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0) + bytes(1000)


def exif() -> bytes:
    block = exif_block()
    block[ExifTags.Base.Artist] = ARTIST.encode()
    block[ExifTags.Base.XPKeywords] = KEYWORDS
    block[ExifTags.Base.Rating] = 4
    del block[ExifTags.Base.XResolution], block[ExifTags.Base.YResolution]
    return block.tobytes()


def jpeg(path: Path, xmp: bytes | None = None, behind: bytes = b"", **more) -> Path:
    stream = io.BytesIO()
    options = {"comment": "a comment", "dpi": (240, 240), "exif": exif()} | more | ({"xmp": xmp} if xmp else {})
    Image.fromarray(picture()).save(stream, "JPEG", quality=95, **options)
    content = stream.getvalue()
    resource = b"Photoshop 3.0\0" + b"8BIM\x04\x0c\0\0\0\0\0\x02ab" + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC))
    segment = resource + IPTC + bytes(len(IPTC) % 2)
    head = 4 + int.from_bytes(content[4:6], "big")
    path.write_bytes(
        content[:head] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + content[head:] + behind
    )
    return path


def passed_on(source: Path, suffix: str) -> Path:
    """What enhancing with strength 0 makes of a file."""
    target = source.with_name(f"out.{suffix}")
    write_original(read_original(source).edited(lambda strip, top: strip), target)
    return target


def records(path: Path) -> dict:
    """IPTC records by Pillow, which knows them in JPEG and TIFF."""
    with Image.open(path) as image:
        return IptcImagePlugin.getiptcinfo(image) or {}


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
@pytest.mark.parametrize("again", [False, True])
def test_iptc_comment_resolution_and_names_stay(tmp_path: Path, suffix: str, again: bool) -> None:
    source = jpeg(tmp_path / "in.jpg")
    source = passed_on(source, suffix).rename(tmp_path / f"again.{suffix}") if again else source
    target = passed_on(source, suffix)
    assert records(target)[(2, 25)] == b"sea" and records(target)[(2, 80)] == ARTIST.encode()
    with Image.open(target) as image:
        assert tuple(round(value) for value in image.info["dpi"]) == (240, 240)
        if suffix == "jpg":
            assert image.info["comment"] == b"a comment"
        found = image.getexif()
        assert found[ExifTags.Base.Artist].encode("latin-1") == ARTIST.encode()
        assert found[ExifTags.Base.XPKeywords] == KEYWORDS
        assert found[ExifTags.Base.Rating] == 4


def test_a_png_keeps_what_it_can(tmp_path: Path) -> None:
    target = passed_on(jpeg(tmp_path / "in.jpg"), "png")
    with Image.open(target) as image:
        assert image.text["Comment"] == "a comment"
        assert "Raw profile type iptc" in image.text
        assert round(image.info["dpi"][0]) == 240
    assert read_original(target).beside.iptc == IPTC
    target = passed_on(target.rename(tmp_path / "a.png"), "jpg")
    assert records(target)[(2, 25)] == b"sea"
    assert Image.open(target).info["comment"] == b"a comment"


def test_texts_of_a_png_stay(tmp_path: Path) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Title", "Meer")
    texts.add_itxt("Description", "海 and ä")
    texts.add_text("Comment", "long " * 1000, zip=True)
    Image.fromarray(picture()).save(tmp_path / "a.png", pnginfo=texts, dpi=(300, 300))
    with Image.open(passed_on(tmp_path / "a.png", "png")) as image:
        assert image.text == {"Title": "Meer", "Description": "海 and ä", "Comment": "long " * 1000}
        assert round(image.info["dpi"][0]) == 300


def test_names_of_a_tiff_stay_in_a_tiff(tmp_path: Path) -> None:
    samples = picture().astype(np.uint16) * 257
    tags = [(33723, 7, len(IPTC), IPTC, True), (18246, "H", 1, 3, True), (40094, 1, len(KEYWORDS), KEYWORDS, True)]
    tags += [(315, 2, len(ARTIST.encode()) + 1, ARTIST.encode() + b"\0", True)]
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", extratags=tags)
    target = passed_on(tmp_path / "a.tif", "tif")
    assert records(target)[(2, 25)] == b"sea"
    with tifffile.TiffFile(target) as tiff:
        found = tiff.pages[0].tags
        assert found[18246].value == 3 and bytes(found[40094].value) == KEYWORDS
    assert ARTIST.encode() in target.read_bytes()


@pytest.mark.parametrize("is_lossless", [True, False])
def test_a_lossless_webp_stays_lossless(tmp_path: Path, is_lossless: bool) -> None:
    samples = picture(channels=4)
    Image.fromarray(samples).save(tmp_path / "a.webp", lossless=is_lossless, exact=True)
    same = np.array_equal(np.asarray(Image.open(passed_on(tmp_path / "a.webp", "webp"))), samples)
    assert same == is_lossless


def packet(inside: str) -> bytes:
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf='
        '"http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" xmlns:xmp='
        '"http://ns.adobe.com/xap/1.0/" xmp:Rating="3" xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" '
        'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" xmlns:Container='
        '"http://ns.google.com/photos/1.0/container/" xmlns:Item="http://ns.google.com/photos/1.0/container/item/" '
        f'{inside}</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def directory(*semantics: str) -> str:
    items = "".join(
        '<rdf:li rdf:parseType="Resource"><Container:Item Item:Mime="x/y" Item:Semantic="'
        f'{name}" Item:Length="{0 if name == "Primary" else len(VIDEO)}"/></rdf:li>'
        for name in semantics
    )
    return f"<Container:Directory><rdf:Seq>{items}</rdf:Seq></Container:Directory>"


MOTION = packet('GCamera:MotionPhoto="1" GCamera:MotionPhotoVersion="1">' + directory("Primary", "MotionPhoto"))


def test_the_film_of_a_motion_photo_goes_along_into_a_jpeg(tmp_path: Path) -> None:
    source = jpeg(tmp_path / "in.jpg", MOTION, VIDEO)
    target = passed_on(source, "jpg")
    assert target.read_bytes().endswith(b"\xff\xd9" + VIDEO)
    assert Image.open(target).info["xmp"] == MOTION
    old = packet(f'GCamera:MicroVideo="1" GCamera:MicroVideoOffset="{len(VIDEO)}">')
    assert passed_on(jpeg(tmp_path / "old.jpg", old, VIDEO), "jpg").read_bytes().endswith(VIDEO)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_where_the_film_stays_behind_nothing_promises_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    target = passed_on(jpeg(tmp_path / "in.jpg", MOTION, VIDEO), suffix)
    xmp = read_original(target).xmp
    assert b"MotionPhoto" not in xmp and b"Directory" not in xmp and b'xmp:Rating="3"' in xmp
    assert VIDEO not in target.read_bytes() and "film of a motion photo" in caplog.text


@pytest.mark.parametrize("suffix", ["heic", "avif"])
def test_the_film_of_a_heic_goes_along_in_its_box(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    film = struct.pack(">I4s", 8 + len(VIDEO), b"mpvd") + VIDEO
    write_original(replace(read_original(jpeg(tmp_path / "a.jpg")), xmp=MOTION), tmp_path / f"plain.{suffix}")
    assert "MotionPhoto" not in str(read_original(tmp_path / f"plain.{suffix}").xmp), "it promises no film"
    still = replace(read_original(jpeg(tmp_path / "a.jpg")), xmp=MOTION, beside=Beside(video=film))
    write_original(still, tmp_path / f"in.{suffix}")
    target = passed_on(tmp_path / f"in.{suffix}", suffix)
    assert target.read_bytes().endswith(film)
    assert read_original(target).xmp == MOTION and "film" not in caplog.text
    assert b"MotionPhoto" not in read_original(passed_on(target, "jpg")).xmp
    assert "film of a motion photo does not go" in caplog.text


def extended_jpeg(path: Path, count: int = 2) -> tuple[Path, bytes, bytes]:
    """A JPEG whose XMP goes on in two further segments, of which ``count`` are written; the packet and its rest."""
    rest = packet(">").replace(b' xmp:Rating="3"', b"").partition(b"<x:")[2].rpartition(b"<?")[0]
    rest = b"<x:" + rest.replace(
        b"</rdf:Description>", b"<xmp:Nickname>" + b"x" * 90_000 + b"</xmp:Nickname></rdf:Description>"
    )
    name = hashlib.md5(rest).hexdigest().upper()
    main = packet(f'xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="{name}">')
    jpeg(path, main)
    content = path.read_bytes()
    head = b"http://ns.adobe.com/xmp/extension/\0" + name.encode()
    pieces = [head + struct.pack(">II", len(rest), start) + rest[start : start + 60_000] for start in (60_000, 0)]
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(piece) + 2) + piece for piece in pieces[:count])
    path.write_bytes(content[:2] + segments + content[2:])
    return path, main, rest


def test_extended_xmp_goes_on_in_a_jpeg_and_is_one_packet_elsewhere(tmp_path: Path) -> None:
    source, main, rest = extended_jpeg(tmp_path / "in.jpg")
    again = read_original(passed_on(source, "jpg"))
    assert (again.xmp, again.beside.extended_xmp) == (main, rest)
    for suffix in ("png", "tif", "webp", "avif", "heic"):
        xmp = read_original(passed_on(source, suffix)).xmp
        root = ElementTree.fromstring(xmp)
        (nickname,) = root.iter("{http://ns.adobe.com/xap/1.0/}Nickname")
        assert nickname.text == "x" * 90_000
        assert b'xmp:Rating="3"' in xmp and b"HasExtendedXMP" not in xmp


def test_extended_xmp_that_lacks_a_part_is_left_out_and_said_to_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    again = read_original(passed_on(extended_jpeg(tmp_path / "in.jpg", 1)[0], "jpg"))
    assert again.beside.extended_xmp is None and b"HasExtendedXMP" not in again.xmp
    assert b'xmp:Rating="3"' in again.xmp and "not all there" in caplog.text


def test_a_gain_map_goes_and_its_promise_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    inside = 'hdrgm:Version="1.0">' + directory("Primary", "GainMap", "MotionPhoto")
    inside += "<hdrgm:GainMapMax><rdf:Seq><rdf:li>1</rdf:li></rdf:Seq></hdrgm:GainMapMax>"
    source = jpeg(tmp_path / "in.jpg", packet(inside), b"\xff\xd8\xff\xd9" + VIDEO)
    assert read_header(source).pictures == 2  # so that no result takes its place
    target = passed_on(source, "jpg")
    xmp = Image.open(target).info["xmp"]
    assert "gain map" in caplog.text
    assert b"GainMap" not in xmp and b"hdrgm:Version" not in xmp
    assert xmp.count(b"<rdf:li") == 2 and video_length(xmp) == len(VIDEO)  # the picture and the film
    assert target.read_bytes().endswith(b"\xff\xd9" + VIDEO)


def test_packets_that_promise_nothing_stay_to_the_byte() -> None:
    plain = packet(">")
    assert without_claims(plain, keep_video=False) == plain
    assert promises_gain_map(plain)  # by the declared name alone, as its writers declare it
    assert video_length(b"Item:Semantic" * 3) == 0


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="ExifTool is not installed")
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "avif", "heic"])
def test_exiftool_finds_what_it_found_before(tmp_path: Path, suffix: str) -> None:
    def tags(path: Path) -> dict:
        listed = subprocess.run(["exiftool", "-j", "-G0", path], capture_output=True, check=True, text=True).stdout
        return json.loads(listed)[0]

    source = jpeg(tmp_path / "in.jpg")
    before, after = tags(source), tags(passed_on(source, suffix))
    groups = ("EXIF:", "IPTC:") if suffix in ("jpg", "png", "tif") else ("EXIF:",)
    kept = {name: value for name, value in before.items() if name.startswith(groups)}
    different = {name: (value, after.get(name)) for name, value in kept.items() if after.get(name) != value}
    assert set(different) <= {"EXIF:ExifImageWidth", "EXIF:ExifImageHeight", "EXIF:Orientation"}  # none is upright, too


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="ExifTool is not installed")
def test_exiftool_finds_extended_xmp(tmp_path: Path) -> None:
    def nickname(path: Path) -> str:
        command = ["exiftool", "-b", "-XMP-xmp:Nickname", path]
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout

    source, _, _ = extended_jpeg(tmp_path / "in.jpg")
    for path in (source, passed_on(source, "jpg"), passed_on(source, "png")):
        assert nickname(path) == "x" * 90_000, path


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "avif", "heic"])
def test_names_beyond_ascii_are_the_same_bytes_in_every_format(tmp_path: Path, suffix: str) -> None:
    exif = read_original(passed_on(jpeg(tmp_path / "in.jpg"), suffix)).exif
    assert ARTIST.encode() in exif
