"""Splits: what shows one scene is in one split, by name, by time or by its looks; the published ones stay."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import ExifTags, Image
from torch import Tensor

from components.data.building import BuildSettings, build
from components.data.facts import read_facts
from components.data.records import Manifest
from components.data.scenes import Scenes
from components.data.shots import read_shot, shot_of
from components.data.sources.base import open_source
from components.imaging.photo import MAX_PIXELS, Photo, write_photo
from tests.conftest import make_photo
from tests.data.sources.layouts import save
from tests.data.sources.miniatures import MINIATURES, SIZE

DIGESTS = [f"{number:064x}" for number in range(6)]
DIFFERENT = [f"{number * 0x1111111111111111:016x}" for number in range(6)]


def shot(begin: float, camera: str = "Make Model", exposure: float = 0.01) -> str:
    return f"{camera}|{begin:.2f}|{begin + exposure:.2f}"


def splits_of(rows: list[dict], hashes: list[str] | None = None, **settings: float | None) -> list[str]:
    scenes = Scenes()
    own = []
    for row in rows:
        scenes.add(row.get("dataset", "d"), row.get("published", False), row.get("name"), row.get("shot", ""))
        own.append(row["split"])
    given = {"distance": 6, "pause": 2.0} | settings
    return scenes.splits(own, DIGESTS[: len(rows)], hashes or DIFFERENT[: len(rows)], **given).tolist()


def test_photos_of_no_scene_keep_the_split_of_their_hash() -> None:
    assert splits_of([{"split": split} for split in ("train", "test", "validation")]) == ["train", "test", "validation"]


def test_a_scene_has_the_split_of_its_smallest_digest() -> None:
    rows = [{"split": "train"}, {"split": "test", "name": "a"}, {"split": "train", "name": "a"}, {"split": "train"}]
    assert splits_of(rows) == ["train", "test", "test", "train"]
    looks = [DIFFERENT[0], DIFFERENT[1], DIFFERENT[2], f"{0x3333333333333333 ^ 0b111:016x}", DIFFERENT[3]]
    rows = [{"split": split} for split in ("train", "train", "test", "test", "train")]
    assert splits_of(rows, looks) == ["train", "train", "test", "test", "test"]
    assert splits_of(rows, looks, distance=None) == ["train", "train", "test", "test", "train"]


def test_a_burst_is_what_one_camera_took_without_a_pause() -> None:
    times = (100.0, 101.5, 103.0, 110.0)
    rows = [{"split": split, "shot": shot(time)} for split, time in zip(("test", *["train"] * 3), times, strict=True)]
    assert splits_of(rows) == ["test", "test", "test", "train"]
    assert splits_of(rows, pause=None) == ["test", "train", "train", "train"]
    rows[1]["shot"] = shot(101.5, "Another")
    assert splits_of(rows) == ["test", "train", "train", "train"]
    rows[1]["shot"] = shot(101.5, exposure=8.0)  # the dark one of a bracket: it ends when the last begins
    assert splits_of(rows) == ["test", "test", "test", "test"]
    rows[3]["dataset"] = "another"
    assert splits_of(rows) == ["test", "test", "test", "train"]


def test_published_splits_stay_and_take_along_what_looks_like_their_photos() -> None:
    looks = [DIFFERENT[1]] * 3 + [DIFFERENT[2]]
    rows = [
        {"split": "train", "published": True},
        {"split": "test", "published": True},
        {"split": "train"},
        {"split": "train"},
    ]
    assert splits_of(rows, looks) == ["train", "test", "test", "train"]


def exif_of(time: str, **more: object) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Canon", "EOS R5"
    details = exif.get_ifd(ExifTags.IFD.Exif)
    details[ExifTags.Base.DateTimeOriginal] = time
    details.update({getattr(ExifTags.Base, name): value for name, value in more.items()})
    return exif


def test_a_shot_is_read_out_of_exif(tmp_path: Path) -> None:
    exif = exif_of("2024:05:01 12:00:00", SubsecTimeOriginal="25", ExposureTime=0.5)
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    for suffix in ("jpg", "png", "tif", "webp", "heic"):
        write_photo(Photo(make_photo(64, 96), exif=block), tmp_path / f"a.{suffix}")
        found = read_shot(read_facts(tmp_path / f"a.{suffix}", MAX_PIXELS).shot)
        assert found is not None and found.camera == "Canon EOS R5", suffix
        assert found.begin % 60 == 0.25 and found.end - found.begin == 0.5
    assert read_shot(shot_of(Image.Exif())) is None
    assert shot_of(exif_of("0000:00:00 00:00:00")) == shot_of(exif_of("yesterday")) == ""


def own(folder: Path, out: Path) -> Manifest:
    source = open_source("single_folder", folder, licence="mine")
    return build([source], out, BuildSettings(workers=2), photos_dir=folder)


def test_bursts_and_brackets_of_a_card_are_one_group_each(tmp_path: Path, photo_factory: Callable[..., Tensor]) -> None:
    card = tmp_path / "card"
    card.mkdir()
    for scene in range(12):
        pixels = photo_factory(64, 96, seed=scene)
        for frame in range(3):
            shown = (pixels * (0.35, 1.0, 2.2)[frame]).clamp(0, 1)
            array = (shown * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            exif = exif_of(f"2024:05:01 12:{scene:02d}:{frame:02d}")
            Image.fromarray(array).save(card / f"IMG_{scene:02d}{frame}.jpg", exif=exif, quality=92)
    manifest = own(card, tmp_path / "out")
    by_scene: dict[str, set[str]] = {}
    for record in manifest:
        by_scene.setdefault(record.path[:6], set()).add(record.split)
    assert len(by_scene) == 12 and all(len(splits) == 1 for splits in by_scene.values())
    assert len(set.union(*by_scene.values())) >= 2


@pytest.mark.parametrize("content", [None, b"", b"\x89PNG\r\n\x1a\n and no more"], ids=["missing", "empty", "damaged"])
def test_all_versions_of_a_photo_without_its_reference_share_a_split(tmp_path: Path, content: bytes | None) -> None:
    MINIATURES["kadid10k"](tmp_path / "kadid")
    reference = tmp_path / "kadid" / "images" / "I01.png"
    reference.unlink() if content is None else reference.write_bytes(content)
    manifest = build(
        [open_source("kadid10k", tmp_path / "kadid")], tmp_path / "out", BuildSettings(), photos_dir=tmp_path
    )
    assert len(manifest) == 25 and all((one.pair, one.role, one.kind) == (None,) * 3 for one in manifest)
    assert all(record.mos is not None for record in manifest)
    assert len({record.split for record in manifest}) == 1
    assert [Path(entry.path).name for entry in manifest.quarantine] == ["I01.png"]


def test_versions_of_one_photo_in_two_datasets_share_the_published_split(tmp_path: Path) -> None:
    for number in range(6):
        save(tmp_path / "published" / "test" / "shadow" / f"{number}.jpg", number, SIZE)
        save(tmp_path / "published" / "test" / "shadow_free" / f"{number}_free.jpg", number + 100, SIZE)
        save(tmp_path / "own" / f"{number}.png", number, SIZE)
    sources = [open_source("single_folder", tmp_path / "own"), open_source("srd", tmp_path / "published")]
    manifest = build(sources, tmp_path / "out", BuildSettings(), photos_dir=tmp_path)
    assert {record.split for record in manifest} == {"test"} and len(manifest) == 18


def test_a_photo_that_is_added_moves_none_that_looks_otherwise(tmp_path: Path, photo_factory) -> None:
    folder = tmp_path / "photos"
    for number in range(8):
        write_photo(Photo(photo_factory(64, 96, seed=number)), folder / f"{number}.jpg")
    before = {record.path: record.split for record in own(folder, tmp_path / "a")}
    write_photo(Photo(photo_factory(64, 96, seed=3)), folder / "again.jpg", quality=60)
    shutil.copy(folder / "0.jpg", folder / "z-copy.jpg")
    after = {record.path: record.split for record in own(folder, tmp_path / "b")}
    assert after.pop("again.jpg") == after["3.jpg"]
    assert {path: split for path, split in after.items() if path != "3.jpg"} == {
        path: split for path, split in before.items() if path != "3.jpg"
    }


@pytest.mark.parametrize("setting", [{"scene_distance": 16}, {"burst_pause": -1.0}])
def test_impossible_settings_are_refused(setting: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        BuildSettings(**setting)
