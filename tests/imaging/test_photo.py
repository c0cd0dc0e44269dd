"""Reading and writing pictures, against Pillow's, tifffile's and Little CMS's own reading of the same files."""

import io
import struct
import zlib
from pathlib import Path

import colour
import imagecodecs
import numpy as np
import pillow_heif
import pytest
import tifffile
import torch
from PIL import ExifTags, Image, ImageCms, ImageOps

from components import files
from components.imaging import photo as images
from components.imaging.photo import Photo, UnreadablePhoto, read_header, read_photo, write_photo


def picture(height: int = 24, width: int = 36, channels: int = 3, seed: int = 0) -> np.ndarray:
    """A smooth uint8 picture with different content in every corner."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 6, channels), np.uint8)
    planes = [Image.fromarray(small[..., c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(channels)]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def as_uint8(pixels: torch.Tensor) -> np.ndarray:
    return (pixels * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)


def exif_block(orientation: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Contax"
    exif[ExifTags.Base.Artist] = "A. Photographer"
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.XResolution] = exif[ExifTags.Base.YResolution] = 300.0
    exif[ExifTags.Base.ResolutionUnit] = 2
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber] = 2.8
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExifImageWidth] = 36
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExifImageHeight] = 24
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = b"maker\x00note"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    return exif


def test_an_8_bit_rgb_png_is_read_exactly(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    photo = read_photo(tmp_path / "a.png")
    assert photo.pixels.dtype == torch.float32
    assert np.array_equal(as_uint8(photo.pixels), picture())
    assert (photo.width, photo.height, photo.bit_depth, photo.mode, photo.alpha) == (36, 24, 8, "RGB", None)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_exif_orientation_is_applied_as_pillow_does(tmp_path: Path, orientation: int, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(picture()).save(path, exif=exif_block(orientation))
    with Image.open(path) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    assert np.array_equal(as_uint8(read_photo(path).pixels), expected)


def test_a_16_bit_rotated_png_is_turned_upright(tmp_path: Path) -> None:
    deep = picture().astype(np.uint16) * 256 + 17
    exif = exif_block(6).tobytes().removeprefix(b"Exif\x00\x00")
    content = imagecodecs.png_encode(deep)
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    (tmp_path / "a.png").write_bytes(content[:33] + chunk + content[33:])
    photo = read_photo(tmp_path / "a.png")
    assert photo.bit_depth == 16
    assert np.array_equal((photo.pixels * 65535).round().permute(1, 2, 0).numpy(), np.rot90(deep, -1))


def test_greyscale_becomes_three_equal_channels(tmp_path: Path) -> None:
    grey = picture()[..., 0]
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(grey > 128).save(tmp_path / "b.png")
    photo = read_photo(tmp_path / "a.png")
    assert photo.mode == "L"
    assert all(np.array_equal(as_uint8(photo.pixels)[..., channel], grey) for channel in range(3))
    assert set(np.unique(as_uint8(read_photo(tmp_path / "b.png").pixels))) == {0, 255}


def test_palette_and_its_transparency(tmp_path: Path) -> None:
    rgba = picture(channels=4)
    rgba[:12, :, 3], rgba[12:, :, 3] = 255, 0
    indexed = Image.fromarray(rgba).quantize(32)
    indexed.save(tmp_path / "a.png")
    expected = np.asarray(Image.open(tmp_path / "a.png").convert("RGBA"))
    photo = read_photo(tmp_path / "a.png")
    assert photo.mode == "P"
    assert np.array_equal(as_uint8(photo.pixels), expected[..., :3])
    assert np.array_equal(as_uint8(photo.alpha)[..., 0], expected[..., 3])


def test_cmyk_without_a_profile_and_with_one(tmp_path: Path) -> None:
    Image.fromarray(picture()).convert("CMYK").save(tmp_path / "a.jpg", quality=100, subsampling=0)
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.mode == "CMYK"
    assert np.abs(as_uint8(photo.pixels).astype(int) - picture()).mean() < 2


def test_a_wide_gamut_profile_is_converted_as_the_references_do(tmp_path: Path) -> None:
    profile = imagecodecs.cms_profile("adobergb")
    Image.fromarray(picture()).save(tmp_path / "a.png", icc_profile=profile)
    expected = ImageCms.profileToProfile(
        Image.fromarray(picture()),
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.PERCEPTUAL,
    )
    photo = read_photo(tmp_path / "a.png")
    assert np.abs(as_uint8(photo.pixels).astype(int) - np.asarray(expected)).max() <= 1
    assert np.abs(as_uint8(photo.pixels).astype(int) - picture()).max() > 10
    deep = picture().astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb", iccprofile=profile)
    adobe, srgb = colour.RGB_COLOURSPACES["Adobe RGB (1998)"], colour.RGB_COLOURSPACES["sRGB"]
    reference = colour.RGB_to_RGB(picture() / 255, adobe, srgb, apply_cctf_decoding=True, apply_cctf_encoding=True)
    converted = read_photo(tmp_path / "a.tif").pixels.permute(1, 2, 0).numpy()
    assert np.abs(converted - reference.clip(0, 1)).max() < 4e-3


def test_an_srgb_profile_leaves_the_samples_exactly_as_they_are(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(picture()).save(tmp_path / "a.png", icc_profile=profile)
    Image.fromarray(picture()[..., 0]).save(tmp_path / "grey.png", icc_profile=profile)
    assert np.array_equal(as_uint8(read_photo(tmp_path / "a.png").pixels), picture())
    assert np.array_equal(as_uint8(read_photo(tmp_path / "grey.png").pixels)[..., 1], picture()[..., 0])


def test_a_broken_profile_is_reported_and_the_photo_still_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png", icc_profile=b"not a profile at all" * 10)
    assert np.array_equal(as_uint8(read_photo(tmp_path / "a.png").pixels), picture())
    assert "unusable colour profile" in caplog.text


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_16_bits_and_alpha_survive_a_round_trip(tmp_path: Path, suffix: str, channels: int) -> None:
    deep = np.random.default_rng(1).integers(0, 65536, (20, 30, channels), np.uint16)
    source, copy = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    if suffix == "png":
        source.write_bytes(imagecodecs.png_encode(deep))
    else:
        extra = ["unassalpha"] if channels == 4 else None
        tifffile.imwrite(source, deep, photometric="rgb", extrasamples=extra)
    photo = read_photo(source)
    assert photo.bit_depth == 16 and (photo.alpha is not None) == (channels == 4)
    write_photo(photo, copy)
    stored = imagecodecs.png_decode(copy.read_bytes()) if suffix == "png" else tifffile.imread(copy)
    assert stored.dtype == np.uint16 and np.array_equal(stored, deep)


def test_16_bit_grey_tiff_planar_and_white_is_zero(tmp_path: Path) -> None:
    grey = picture()[..., 0].astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "a.tif", 65535 - grey, photometric="miniswhite")
    assert np.array_equal((read_photo(tmp_path / "a.tif").pixels[1] * 65535).round().numpy(), grey)
    deep = picture().astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "b.tif", np.moveaxis(deep, -1, 0), photometric="rgb", planarconfig="separate")
    assert np.array_equal(as_uint8(read_photo(tmp_path / "b.tif").pixels), picture())


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("source", ["jpg", "png", "tif"])
def test_metadata_is_kept_with_orientation_reset(tmp_path: Path, suffix: str, source: str) -> None:
    profile = imagecodecs.cms_profile("adobergb")
    Image.fromarray(picture()).save(tmp_path / f"a.{source}", exif=exif_block(6).tobytes(), icc_profile=profile)
    photo = read_photo(tmp_path / f"a.{source}")
    assert (photo.width, photo.height) == (24, 36)
    write_photo(photo, tmp_path / f"b.{suffix}")
    with Image.open(tmp_path / f"b.{suffix}") as written:
        exif = written.getexif()
        assert exif[ExifTags.Base.Make] == "Contax"
        assert exif[ExifTags.Base.Artist] == "A. Photographer"
        assert exif.get(ExifTags.Base.Orientation, 1) == 1
        assert exif[ExifTags.Base.XResolution] == 300
        assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber] == pytest.approx(2.8)
        assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] == b"maker\x00note"
        assert exif.get_ifd(ExifTags.IFD.GPSInfo)[1] == "N"
        assert written.size == (24, 36)
        if suffix != "tif":
            assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExifImageWidth] == 24
        described = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(written.info["icc_profile"])))
        assert "Adobe RGB" in described
    again = read_photo(tmp_path / f"b.{suffix}")
    assert (again.pixels - photo.pixels).abs().mean() < 0.03  # WebP halves the resolution of colour


def test_a_photo_without_profile_leaves_without_one_and_bytes_repeat(tmp_path: Path) -> None:
    photo = Photo(torch.rand(3, 8, 9, generator=torch.Generator().manual_seed(0)))
    for suffix in ("jpg", "png", "tif", "webp"):
        write_photo(photo, tmp_path / f"a.{suffix}")
        write_photo(photo, tmp_path / f"b.{suffix}")
        assert "icc_profile" not in Image.open(tmp_path / f"a.{suffix}").info
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_the_old_thumbnail_is_unlinked(tmp_path: Path) -> None:
    exif = bytearray(exif_block(3).tobytes().removeprefix(b"Exif\x00\x00"))
    order = "<" if exif[:2] == b"II" else ">"
    count = struct.unpack_from(order + "H", exif, 8)[0]
    struct.pack_into(order + "I", exif, 8 + 2 + 12 * count, 8)  # a next IFD
    write_photo(Photo(torch.rand(3, 24, 36), exif=bytes(exif)), tmp_path / "a.jpg")
    kept = Image.open(tmp_path / "a.jpg").info["exif"].removeprefix(b"Exif\x00\x00")
    assert struct.unpack_from(order + "I", kept, 8 + 2 + 12 * count)[0] == 0


def test_unreadable_files_say_why(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(picture(200, 300)).save(stream, "JPEG", quality=95)
    jpeg = stream.getvalue()
    png = images.to_png_bytes(torch.rand(3, 50, 50))
    deep = imagecodecs.png_encode(np.random.default_rng(0).integers(0, 65536, (50, 50, 3), np.uint16))
    cases = {
        "empty.jpg": (b"", "empty"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "truncated.png": (png[: len(png) // 2], "truncated"),
        "truncated16.png": (deep[: len(deep) // 2], "truncated"),
        "text.jpg": (b"this is not a picture", "not a picture"),
        "header.jpg": (jpeg[:30], r"corrupt|not a picture"),
    }
    for name, (content, reason) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnreadablePhoto, match=reason) as caught:
            read_photo(tmp_path / name)
        assert caught.value.path == tmp_path / name and caught.value.reason
    with pytest.raises(FileNotFoundError):
        read_photo(tmp_path / "absent.jpg")


def test_unsupported_samples_say_what_to_do(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "float.tif", picture().astype(np.float32), photometric="rgb")
    (tmp_path / "photo.nef").write_bytes(b"II*\x00" + bytes(100))
    Image.fromarray(picture()).convert("LAB").save(tmp_path / "lab.tif")
    for name, reason in {"float.tif": "floating-point", "photo.nef": "raw", "lab.tif": "LAB"}.items():
        with pytest.raises(UnreadablePhoto, match=reason):
            read_photo(tmp_path / name)


@pytest.mark.slow
def test_a_picture_over_the_limit_is_refused_before_decoding(tmp_path: Path) -> None:
    bomb = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(bomb, "PNG")
    (tmp_path / "bomb.png").write_bytes(bomb.getvalue())
    with pytest.raises(UnreadablePhoto, match=r"large|limit"):
        read_photo(tmp_path / "bomb.png")
    Image.fromarray(picture()).save(tmp_path / "a.png")
    with pytest.raises(UnreadablePhoto, match="36x24 pixels, more than the limit of 100"):
        read_photo(tmp_path / "a.png", max_pixels=100)


def test_one_pixel_is_a_picture(tmp_path: Path) -> None:
    write_photo(Photo(torch.full((3, 1, 1), 0.5)), tmp_path / "a.jpg")
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.pixels.shape == (3, 1, 1)
    assert read_header(tmp_path / "a.jpg").width == 1


def test_what_a_format_cannot_hold(tmp_path: Path) -> None:
    clear = Photo(torch.rand(3, 4, 4), alpha=torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match="transparency"):
        write_photo(clear, tmp_path / "a.jpg")
    write_photo(Photo(clear.pixels, alpha=torch.ones(1, 4, 4)), tmp_path / "b.jpg")
    assert Image.open(tmp_path / "b.jpg").mode == "RGB"
    with pytest.raises(ValueError, match=r"\.xyz"):
        write_photo(clear, tmp_path / "a.xyz")
    with pytest.raises(ValueError, match="shape"):
        clear.with_pixels(torch.rand(3, 5, 4))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), files.replacing(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("disk full")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_png_bytes_round_trip_exactly() -> None:
    image = images.quantize(torch.rand(3, 17, 23, generator=torch.Generator().manual_seed(1)))
    content = images.to_png_bytes(image)
    assert torch.equal(images.from_png_bytes(content), image)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), as_uint8(image))
    with pytest.raises(ValueError, match="complete PNG"):
        images.from_png_bytes(content[:40])


def test_resize_agrees_with_pillow_bicubic() -> None:
    array = picture(120, 180)
    image = torch.from_numpy(array).permute(2, 0, 1).float() / 255
    for size in ((30, 45), (37, 201)):
        planes = [Image.fromarray(array[..., c].astype(np.float32)) for c in range(3)]
        expected = [np.asarray(p.resize(size[::-1], Image.Resampling.BICUBIC)).clip(0, 255) / 255 for p in planes]
        assert np.abs(images.resize(image, size).numpy() - np.stack(expected)).max() < 1e-4
    assert images.resize_short_side(image, 40).shape == (3, 40, 60)
    assert images.resize_short_side(image, 400) is image


def test_a_grey_profile_gives_way_to_srgb(tmp_path: Path) -> None:
    photo = Photo(torch.rand(3, 8, 9), icc=b"not a profile at all" * 20)
    write_photo(photo, tmp_path / "a.jpg")
    described = ImageCms.getProfileDescription(
        ImageCms.ImageCmsProfile(io.BytesIO(Image.open(tmp_path / "a.jpg").info["icc_profile"]))
    )
    assert "sRGB" in described


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("options", [{"progressive": True}, {"keep_rgb": True}, {"quality": 40}])
def test_a_colour_jpeg_is_decoded_as_pillow_does(tmp_path: Path, subsampling: int, options: dict) -> None:
    subsampling = 0 if "keep_rgb" in options else subsampling
    Image.fromarray(picture(67, 93)).save(tmp_path / "a.jpg", subsampling=subsampling, **options)
    assert np.array_equal(as_uint8(read_photo(tmp_path / "a.jpg").pixels), np.asarray(Image.open(tmp_path / "a.jpg")))


def test_a_jpeg_with_a_preview_is_truncated_all_the_same(tmp_path: Path) -> None:
    thumbnail = io.BytesIO()
    Image.fromarray(picture()).save(thumbnail, "JPEG")
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00" + thumbnail.getvalue()
    Image.fromarray(picture(200, 300)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    read_photo(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(content[:-30])
    with pytest.raises(UnreadablePhoto, match="truncated"):
        read_photo(tmp_path / "b.jpg")


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6" b="c"/></x:xmpmeta>'


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "heic"])
def test_xmp_travels_with_the_photo(tmp_path: Path, suffix: str) -> None:
    write_photo(Photo(torch.rand(3, 16, 18), xmp=XMP), tmp_path / f"a.{suffix}")
    assert read_photo(tmp_path / f"a.{suffix}").xmp == XMP.replace(b'"6"', b'"1"')
    path = tmp_path / f"a.{suffix}"
    info = pillow_heif.open_heif(path).info if suffix == "heic" else Image.open(path).info
    found = info.get("xmp") or info.get("XML:com.adobe.xmp")
    assert (found.encode() if isinstance(found, str) else found) == XMP.replace(b'"6"', b'"1"')


def test_maker_notes_give_way_where_exif_does_not_fit(tmp_path: Path) -> None:
    exif = exif_block()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = bytes(70_000)
    photo = Photo(torch.rand(3, 16, 18), exif=exif.tobytes().removeprefix(b"Exif\x00\x00"))
    write_photo(photo, tmp_path / "a.jpg")
    kept = Image.open(tmp_path / "a.jpg").getexif()
    assert kept[ExifTags.Base.Make] == "Contax"
    assert ExifTags.Base.MakerNote not in kept.get_ifd(ExifTags.IFD.Exif)
