"""MIT-Adobe FiveK: raw originals with five experts' ProPhoto TIFFs, and the small repack."""

from pathlib import Path

import numpy as np
import pytest

from components.data.sources.base import MISSING, SourceError, open_source
from components.data.sources.fivek import NO_EXPERT, NO_PROFILE
from components.imaging.photo import read_photo
from tests.data.sources.layouts import litter, pairs, picture, read, save, save_all, skipped, write
from tests.data.sources.raws import encoded, linear, write_prophoto
from tests.raw_files import write_raw

NAMES = ("a0001-jmac_DSC1459", "a0002-dgw_005", "a0701-kme_0372")
FOLDERS = ("HQa1to700", "HQa1to700", "HQa701to1400")


def scene(seed: int) -> np.ndarray:
    """(24, 32, 3) linear sRGB, nowhere near the sensor's white."""
    return 0.6 * linear(np.asarray(picture(seed, (32, 24))) / 255)


def originals(root: Path, experts: str = "abcde", base: str = "") -> Path:
    for seed, (name, folder) in enumerate(zip(NAMES, FOLDERS, strict=True)):
        colour = scene(seed)
        write_raw(root / base / "raw_photos" / folder / "photos" / f"{name}.dng", colour)
        for expert in experts:
            write_prophoto(root / f"tiff16_{expert}" / f"{name}.tif", colour)
    write(
        root / base / "categories.txt",
        f"{NAMES[0]},outdoor,day,sun_sky,nature",
        f"{NAMES[1]},indoor,None,artificial,people",
        f"{NAMES[2]},unknown,unknown,unknown,man_made",
    )
    return root


def repack(root: Path) -> Path:
    names = ("a0001", "a0002", "a0003", "a0004")
    save_all(root, [f"{folder}/JPG/480p/{name}.jpg" for folder in ("input", "expertC") for name in names])
    write(root / "train_input.txt", "a0001")
    write(root / "train_label.txt", "a0002", "a0004")
    write(root / "test.txt", "a0003")
    return root


@pytest.mark.parametrize("base", ["", "fivek_dataset/"])
def test_a_raw_photo_has_the_versions_of_five_experts(base: str, tmp_path: Path) -> None:
    found = read(open_source("fivek", originals(tmp_path, base=base)))
    assert len(found) == 18 and len(pairs(found)) == 3
    assert pairs(found)[f"fivek/{NAMES[2]}"] == (
        [f"{base}raw_photos/HQa701to1400/photos/{NAMES[2]}.dng"],
        [f"tiff16_{expert}/{NAMES[2]}.tif" for expert in "abcde"],
    )
    assert {(record.split, record.kind) for record in found.values()} == {(None, "enhancement")}


def test_categories_are_labels_unless_unknown(tmp_path: Path) -> None:
    found = read(open_source("fivek", originals(tmp_path, "c")))
    labels = {path.rpartition("/")[2]: record.labels for path, record in found.items()}
    scene = ("location=outdoor", "time=day", "light=sun_sky", "subject=nature")
    assert labels[f"{NAMES[0]}.dng"] == ("as_shot", *scene)
    assert labels[f"{NAMES[0]}.tif"] == ("expert=c", *scene)
    assert labels[f"{NAMES[1]}.dng"] == ("as_shot", "location=indoor", "light=artificial", "subject=people")
    assert labels[f"{NAMES[2]}.dng"] == ("as_shot", "subject=man_made")


def test_every_photo_has_its_licence(tmp_path: Path) -> None:
    originals(tmp_path, "c")
    write(tmp_path / "filesAdobe.txt", NAMES[0])
    write(tmp_path / "filesAdobeMIT.txt", NAMES[1])
    found = {record.pair: record.licence for record in read(open_source("fivek", tmp_path)).values()}
    assert "LicenseAdobe.txt" in found[f"fivek/{NAMES[0]}"] and "MIT" not in found[f"fivek/{NAMES[0]}"]
    assert "LicenseAdobeMIT.txt" in found[f"fivek/{NAMES[1]}"]
    assert "LicenseAdobe.txt, LicenseAdobeMIT.txt" in found[f"fivek/{NAMES[2]}"], "listed in neither"


def test_raw_and_retouched_files_decode_to_the_same_scene(tmp_path: Path) -> None:
    source = open_source("fivek", originals(tmp_path, "a"))
    for seed, ((raw,), (tiff,)) in enumerate(pairs(read(source)).values()):
        shot, retouched = (read_photo(tmp_path / path) for path in (raw, tiff))
        expected = encoded(scene(seed)).transpose(2, 0, 1)
        assert shot.bit_depth == retouched.bit_depth == 16
        assert np.abs(retouched.pixels.numpy() - expected).max() < 4e-3, "ProPhoto, by its profile"
        error = np.abs(shot.pixels.numpy() - expected)[:, 4:-4, 4:-4]
        assert error[0, ::2, ::2].max() < 1e-3 and error[2, 1::2, 1::2].max() < 1e-3, "where the sensor has the colour"


def test_prophoto_values_are_not_those_of_srgb(tmp_path: Path) -> None:
    right = read_photo(write_prophoto(tmp_path / "a.tif", scene(4))).pixels
    wrong = read_photo(write_prophoto(tmp_path / "b.tif", scene(4), profile=False)).pixels
    assert float((wrong - right).abs().mean()) > 0.03


def test_a_raw_photo_of_any_white_balance_and_orientation_fits_its_tiff(tmp_path: Path) -> None:
    originals(tmp_path, "c")
    upright = np.ascontiguousarray(np.rot90(scene(0), 3))
    raw = write_raw(tmp_path / "raw_photos" / FOLDERS[0] / "photos" / f"{NAMES[0]}.dng", scene(0), (0.5, 1, 0.7), 6)
    write_prophoto(tmp_path / "tiff16_c" / f"{NAMES[0]}.tif", upright)
    assert not skipped(open_source("fivek", tmp_path))
    developed = read_photo(raw).pixels.numpy()
    error = np.abs(developed - encoded(upright).transpose(2, 0, 1))[1, 4:-4, 4:-4]
    assert np.median(error) < 1e-3


def test_a_tiff_without_a_profile_is_never_used(tmp_path: Path) -> None:
    originals(tmp_path, "ac")
    write_prophoto(tmp_path / "tiff16_c" / f"{NAMES[0]}.tif", np.full((24, 32, 3), 0.5), profile=False)
    write(tmp_path / "tiff16_c" / f"{NAMES[1]}.tif", "no picture")
    source = open_source("fivek", tmp_path)
    assert pairs(read(source))[f"fivek/{NAMES[0]}"][1] == [f"tiff16_a/{NAMES[0]}.tif"]
    assert skipped(source) == {f"tiff16_c/{name}.tif": NO_PROFILE for name in NAMES[:2]}


def test_what_is_missing_is_skipped(tmp_path: Path) -> None:
    originals(tmp_path, "ac")
    for expert in "ac":
        (tmp_path / f"tiff16_{expert}" / f"{NAMES[0]}.tif").unlink()
    (tmp_path / "tiff16_a" / f"{NAMES[1]}.tif").rename(tmp_path / "tiff16_a" / f"{NAMES[1]}.TIFF")
    litter(tmp_path / "raw_photos")
    source = open_source("fivek", tmp_path)
    found = pairs(read(source))
    assert found[f"fivek/{NAMES[1]}"][1] == [f"tiff16_a/{NAMES[1]}.TIFF", f"tiff16_c/{NAMES[1]}.tif"]
    assert skipped(source) == {
        f"tiff16_a/{NAMES[0]}.tif": MISSING,
        f"tiff16_c/{NAMES[0]}.tif": MISSING,
        f"raw_photos/HQa1to700/photos/{NAMES[0]}.dng": NO_EXPERT,
    }


def test_experts_are_a_choice(tmp_path: Path) -> None:
    originals(tmp_path, "ac")
    assert {path[:8] for path in read(open_source("fivek", tmp_path, experts=("c",)))} == {"raw_phot", "tiff16_c"}
    with pytest.raises(SourceError, match="tiff16_e: missing"):
        open_source("fivek", tmp_path, experts=("c", "e"))


def test_the_repack_has_a_published_split(tmp_path: Path) -> None:
    found = read(open_source("fivek", repack(tmp_path)))
    assert pairs(found)["fivek/a0003"] == (["input/JPG/480p/a0003.jpg"], ["expertC/JPG/480p/a0003.jpg"])
    splits = {record.pair: record.split for record in found.values()}
    assert splits == {
        "fivek/a0001": "train",
        "fivek/a0002": "train",
        "fivek/a0004": "train",
        "fivek/a0003": "test",
    }
    assert {(record.role, record.labels) for record in found.values()} == {
        ("input", ("as_shot",)),
        ("target", ("expert=c",)),
    }


def test_the_repack_reports_missing_photos_and_contradictions(tmp_path: Path) -> None:
    repack(tmp_path)
    (tmp_path / "expertC/JPG/480p/a0002.jpg").unlink()
    assert skipped(open_source("fivek", tmp_path)) == {"expertC/JPG/480p/a0002.jpg": MISSING}
    write(tmp_path / "test.txt", "a0003", "a0004")
    with pytest.raises(SourceError, match=r"test\.txt: a0004 is listed as train and as test"):
        list(open_source("fivek", tmp_path).records())
    (tmp_path / "train_label.txt").unlink()
    with pytest.raises(SourceError, match=r"train_label\.txt: missing"):
        open_source("fivek", tmp_path)


def test_two_versions_in_one_root_need_a_choice(tmp_path: Path) -> None:
    originals(repack(tmp_path), "c")
    with pytest.raises(SourceError, match="both the originals and the repack are here: set version"):
        open_source("fivek", tmp_path)
    assert len(read(open_source("fivek", tmp_path, version="480p"))) == 8
    assert len(read(open_source("fivek", tmp_path, version="originals"))) == 6


def test_altered_originals_are_errors(tmp_path: Path) -> None:
    originals(tmp_path, "c")
    write(tmp_path / "categories.txt", f"{NAMES[0]},outdoor,day,sun_sky")
    with pytest.raises(SourceError, match=r"categories\.txt: line 1: expected name,location,time,light,subject"):
        open_source("fivek", tmp_path)
    (tmp_path / "categories.txt").unlink()
    with pytest.raises(SourceError, match=r"categories\.txt: missing"):
        open_source("fivek", tmp_path)
    (tmp_path / "tiff16_c").rename(tmp_path / "experts_c")
    with pytest.raises(SourceError, match="tiff16_c: missing, and so are all other experts"):
        open_source("fivek", tmp_path)


def test_files_of_another_kind_are_reported(tmp_path: Path) -> None:
    originals(tmp_path, "c")
    save(tmp_path / "raw_photos" / "HQa1to700" / "photos" / "preview.jpg")
    save(tmp_path / "raw_photos" / "previews" / "a.jpg")
    assert skipped(open_source("fivek", tmp_path)) == {
        "raw_photos/HQa1to700/photos/preview.jpg": "not a photo",
        "raw_photos/previews": "not a folder like HQa1to700/photos",
    }
