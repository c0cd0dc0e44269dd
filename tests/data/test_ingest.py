"""Ingestion: every file lands in the manifest or in the quarantine, with hashes that other tools agree with."""

import io
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import imagehash
import pytest
import torch
from PIL import Image
from torch import Tensor

from components.data.facts import perceptual_hash
from components.data.ingest import DatasetSettings, IngestSettings, build_manifest
from components.data.records import Manifest, read_manifest
from components.data.splits import SplitSettings, split_of
from components.imaging.photo import Photo, write_photo
from tests.data.builders import attribute, attribution_row


def test_records_agree_with_other_tools(manifest: Manifest, photos_dir: Path, tmp_path: Path) -> None:
    assert len(manifest) == 6 and not manifest.quarantine
    for record in manifest:
        path = photos_dir / record.path
        digest = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]
        assert record.sha256 == digest
        assert record.split == split_of(digest, SplitSettings(train=0.4, validation=0.3, seed=1))
        assert int(record.perceptual_hash, 16) == int(str(imagehash.phash(Image.open(path))), 16)
        assert (record.width, record.height, record.bit_depth, record.mode) == (108, 72, 8, "RGB")
        assert record.licence == "CC0-1.0" and record.source == "synthetic"
    assert [record.mos for record in manifest] == [71.5] + [None] * (5)
    assert list(read_manifest(tmp_path / "manifest")) == list(manifest)


def test_the_perceptual_hash_survives_recompression_but_not_another_photo(
    photo_factory: Callable[..., Tensor],
) -> None:
    photo = photo_factory(200, 300, seed=3)
    stream = io.BytesIO()
    Image.fromarray((photo * 255).to(torch.uint8).permute(1, 2, 0).numpy()).save(stream, "JPEG", quality=30)
    squeezed = torch.frombuffer(bytearray(Image.open(stream).tobytes()), dtype=torch.uint8)
    squeezed = squeezed.reshape(200, 300, 3).permute(2, 0, 1).float() / 255

    def bits(other: Tensor) -> int:
        return (int(perceptual_hash(photo), 16) ^ int(perceptual_hash(other), 16)).bit_count()

    assert bits(squeezed) <= 4
    assert bits(photo_factory(200, 300, seed=4)) > 12


def test_what_cannot_be_used_is_quarantined_with_its_reason(photos_dir: Path, tmp_path: Path) -> None:
    whole = (photos_dir / "photo-1.jpg").read_bytes()
    (photos_dir / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (photos_dir / "empty.jpg").write_bytes(b"")
    (photos_dir / "notes.txt").write_text("not a photo")
    write_photo(Photo(torch.rand(3, 1, 1)), photos_dir / "pixel.png")
    shutil.copy(photos_dir / "photo-2.jpg", photos_dir / "zz-copy.jpg")
    write_photo(Photo(torch.rand(3, 80, 80)), photos_dir / "unlicensed.png")
    (photos_dir / ".gitignore").write_text("/photos\n")
    files = [f"photo-{index}.jpg" for index in range(6)]
    files += ["truncated.jpg", "empty.jpg", "pixel.png", "zz-copy.jpg", "gone.jpg"]
    attribution = attribute(photos_dir / "ATTRIBUTION.csv", [attribution_row(file) for file in files])
    manifest = build_manifest(photos_dir, attribution, tmp_path / "out", IngestSettings())
    assert [record.path for record in manifest] == files[:6]
    reasons = {entry.path: entry.reason for entry in manifest.quarantine}
    expected = {
        "truncated.jpg": "truncated",
        "empty.jpg": "empty",
        "notes.txt": "not a picture",
        "pixel.png": "1x1",
        "zz-copy.jpg": "the same bytes as photo-2.jpg",
        "unlicensed.png": "licence",
        "gone.jpg": "missing",
    }
    assert reasons.keys() == expected.keys()
    assert all(words in reasons[path] for path, words in expected.items())
    assert read_manifest(tmp_path / "out").quarantine == manifest.quarantine


def test_photos_in_folders_have_paths_and_ids_with_slashes(photos_dir: Path, tmp_path: Path) -> None:
    (photos_dir / "inner").mkdir()
    (photos_dir / "photo-0.jpg").rename(photos_dir / "inner" / "photo-0.jpg")
    rows = [attribution_row("inner/photo-0.jpg", labels="noise; jpeg")]
    attribution = attribute(tmp_path / "a.csv", rows)
    manifest = build_manifest(photos_dir, attribution, tmp_path / "out", IngestSettings(), dataset="kadid")
    (found,) = manifest
    assert (found.id, found.path, found.labels) == ("kadid/inner/photo-0.jpg", "inner/photo-0.jpg", ("noise", "jpeg"))


def test_accents_of_the_attribution_and_of_the_disk_may_be_written_differently(
    photos_dir: Path, tmp_path: Path
) -> None:
    (photos_dir / "photo-0.jpg").rename(photos_dir / "cafe\u0301.jpg")
    (photos_dir / "photo-1.jpg").rename(os.fsdecode(os.fsencode(photos_dir) + b"/\xd5\xd5.jpg"))
    (photos_dir / "photo-2.xmp").write_text("settings")
    attribution = attribute(tmp_path / "a.csv", [attribution_row("caf\u00e9.jpg"), attribution_row("photo-2.jpg")])
    manifest = build_manifest(photos_dir, attribution, tmp_path / "out", IngestSettings())
    assert [record.path for record in manifest] == ["cafe\u0301.jpg", "photo-2.jpg"]
    reasons = {entry.path: entry.reason for entry in manifest.quarantine}
    assert "not UTF-8" in reasons[r"\xd5\xd5.jpg"] and "photo-2.xmp" not in reasons


def test_errors_name_what_is_wrong(photos_dir: Path, tmp_path: Path) -> None:
    def build(attribution: Path, photos: Path = photos_dir) -> Manifest:
        return build_manifest(photos, attribution, tmp_path / "out", IngestSettings())

    with pytest.raises(FileNotFoundError, match="dvc pull"):
        build(photos_dir / "ATTRIBUTION.csv", tmp_path / "absent")
    with pytest.raises(ValueError, match="missing: licence"):
        build(attribute(tmp_path / "a.csv", [{"file": "a", "author": "b", "source": "c"}]))
    with pytest.raises(ValueError, match="a second time"):
        build(attribute(tmp_path / "b.csv", [attribution_row("photo-0.jpg")] * 2))
    with pytest.raises(ValueError, match="mos from 0 to 100, found '700'"):
        build(attribute(tmp_path / "c.csv", [attribution_row("photo-0.jpg", mos="700")]))
    with pytest.raises(ValueError, match="no usable photo among"):
        build(attribute(tmp_path / "d.csv", [attribution_row("other.jpg")]))


def test_options_and_roots_of_datasets_are_checked_with_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert DatasetSettings(name="gopro", root="~/GoPro").root == tmp_path / "GoPro"
    with pytest.raises(ValueError, match=r"options of gopro: blurred: .*'blur' or 'blur_gamma'.*there are: blurred"):
        DatasetSettings(name="gopro", root=tmp_path, options={"blurred": "blurry"})
    with pytest.raises(ValueError, match=r"options of srd: colour: .*there are: none"):
        DatasetSettings(name="srd", root=tmp_path, options={"colour": "red"})
