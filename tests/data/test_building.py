"""Building a manifest: resumed after a kill to the same bytes, reading only what changed, pairs kept or lost whole."""

import io
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import imagehash
import pytest
import torch
from PIL import Image
from torch import Tensor

from components.data import facts as facts_module
from components.data.building import BuildSettings, build
from components.data.facts import perceptual_hash, read_facts
from components.data.ingest import DatasetSettings, IngestSettings, build_manifest
from components.data.records import read_manifest
from components.data.sources.base import MISSING, Skipped, Source, SourceRecord
from components.imaging.photo import MAX_PIXELS, Photo, read_photo, write_photo
from components.photometry.operations import Operation

_opened: list[str] = []


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Names of the pictures that are opened while the test runs; every open of the process is seen."""
    if not getattr(sys, "_spc_audits_opens", False):
        sys._spc_audits_opens = True
        sys.addaudithook(lambda event, arguments: _note(arguments[0]) if event == "open" else None)
    _opened.clear()
    yield _opened
    _opened.clear()


def _note(path: object) -> None:
    name = os.path.basename(path) if isinstance(path, str) else getattr(path, "name", "")  # noqa: PTH119
    if name.endswith((".jpg", ".png")):
        _opened.append(name)


class Listed(Source):
    """A dataset of given records; when it is read, the process dies at the file "die"."""

    name: ClassVar[str] = "listed"
    layout: ClassVar[str] = "what the test says"
    licence: ClassVar[str] = "CC0-1.0"
    homepage: ClassVar[None] = None

    def __init__(self, root: Path, *entries: tuple[str, dict]) -> None:
        super().__init__(root)
        self.listed = entries
        self.scans = 0

    def scan(self) -> Iterator[SourceRecord]:
        self.scans += 1
        for name, fields in self.listed:
            if name != "die":
                others = {key: value for key, value in fields.items() if key != "split"}
                yield self.record(self.root / name, fields.get("split"), **others)
            else:
                os.kill(os.getpid(), signal.SIGKILL)


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.fixture
def many(tmp_path: Path, photo_factory: Callable[..., Tensor]) -> Path:
    """48 small photos, one of them cut short."""
    folder = tmp_path / "many"
    folder.mkdir()
    for index in range(48):
        write_photo(Photo(photo_factory(64, 64, seed=index)), folder / f"{index:02d}.jpg")
    whole = (folder / "07.jpg").read_bytes()
    (folder / "07.jpg").write_bytes(whole[: len(whole) // 2])
    return folder


def test_a_killed_build_goes_on_to_the_same_bytes(
    many: Path, tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts_module, "_COMMIT_SECONDS", 0.0)
    names = [path.name for path in sorted(many.iterdir())]
    settings, remembered = BuildSettings(workers=1), tmp_path / "facts.sqlite"
    entries = [(name, {}) for name in names]
    entries.insert(40, ("die", {}))
    victim = Listed(many, *entries)
    process = multiprocessing.get_context("fork").Process(
        target=build, args=([victim], tmp_path / "out", settings), kwargs={"photos_dir": many, "facts": remembered}
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert outputs(tmp_path / "out") == {} and any((tmp_path / "out").iterdir())

    calm = Listed(many, *((name, {}) for name in names))
    build([calm], tmp_path / "whole", settings, photos_dir=many)
    opened.clear()
    manifest = build([calm], tmp_path / "out", settings, photos_dir=many, facts=remembered)
    assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")
    assert len(manifest) == 47 and [entry.path for entry in manifest.quarantine] == ["07.jpg"]
    again = set(opened)
    assert len(again) <= 24 and again == set(names[-len(again) :])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"manifest.parquet", "quarantine.jsonl"}


def test_a_second_build_opens_only_what_changed(many: Path, tmp_path: Path, opened: list[str]) -> None:
    settings, remembered = BuildSettings(), tmp_path / "facts.sqlite"

    def once(out: str, more: tuple = ()) -> set[str]:
        names = sorted(path.name for path in many.iterdir())
        source = Listed(many, *((n, {}) for n in names))
        opened.clear()
        build([source], tmp_path / out, settings, photos_dir=many, facts=remembered)
        assert source.scans == 1 and len(opened) == len(set(opened)), "surveyed once, each file opened once"
        return set(opened)

    assert len(once("first")) == 48
    assert once("second") == set() and outputs(tmp_path / "second") == outputs(tmp_path / "first")
    shutil.copy(many / "03.jpg", many / "05.jpg")  # other bytes
    shutil.copy(many / "04.jpg", many / "99.jpg")  # a new file
    os.utime(many / "06.jpg", ns=(1, 1))  # only touched
    (many / "08.jpg").unlink()
    assert once("third") == {"05.jpg", "99.jpg", "06.jpg"}
    third = read_manifest(tmp_path / "third")
    assert {entry.path: entry.reason for entry in third.quarantine if entry.path != "07.jpg"} == {
        "05.jpg": "the same bytes as 03.jpg",
        "99.jpg": "the same bytes as 04.jpg",
    }
    assert len(third) == 45


def test_versions_of_a_photo_share_a_split_and_broken_pairs_go_whole(many: Path, tmp_path: Path) -> None:
    def member(pair: str, role: str, **more: object) -> dict:
        return {"pair": pair, "role": role, "kind": "restoration", **more}

    shutil.copy(many / "11.jpg", many / "copy-of-11.jpg")
    shutil.copy(many / "10.jpg", many / "copy-of-10.jpg")
    noise = Operation(name="noise", amount=0.03, seed=1)
    entries = [(f"{n:02d}.jpg", member(f"a{n // 4}", "target" if n % 4 else "input")) for n in range(12, 44)]
    entries += [
        ("10.jpg", member("shared", "input", operations=(noise,), labels=("noise",))),
        ("11.jpg", member("shared", "target")),
        ("01.jpg", member("second", "input")),
        ("copy-of-11.jpg", member("second", "target")),  # a target that two pairs share
        ("copy-of-10.jpg", member("third", "input")),  # the LOL case: the same input once more
        ("02.jpg", member("third", "target")),
        ("03.jpg", member("fourth", "input")),
        ("07.jpg", member("fourth", "target")),  # cut short
        ("04.jpg", member("fifth", "input", split="test")),
        ("05.jpg", member("fifth", "target", split="test")),
    ]
    manifest = build([Listed(many, *entries)], tmp_path / "out", BuildSettings(), photos_dir=tmp_path)
    rows = {Path(record.path).name: record for record in manifest}
    splits: dict[str, set[str]] = {}
    for record in rows.values():
        splits.setdefault(record.pair, set()).add(record.split)
    assert all(len(found) == 1 for found in splits.values()) and len(set.union(*splits.values())) >= 2
    assert rows["04.jpg"].split == rows["05.jpg"].split == "test"
    assert rows["10.jpg"].path == "many/10.jpg" and rows["10.jpg"].id == "listed/10.jpg"
    assert (rows["10.jpg"].pair, rows["10.jpg"].role, rows["10.jpg"].kind) == ("listed/shared", "input", "restoration")
    assert Operation.model_validate_json(rows["10.jpg"].operations[0]) == noise
    assert rows["copy-of-11.jpg"].sha256 == rows["11.jpg"].sha256
    assert {entry.path.removeprefix("many/"): entry.reason for entry in manifest.quarantine}.keys() == {
        "copy-of-10.jpg",
        "02.jpg",
        "03.jpg",
        "07.jpg",
    }
    reasons = {entry.path: entry.reason for entry in manifest.quarantine}
    assert reasons["many/02.jpg"] == "its pair listed/third has no usable input"
    assert reasons["many/03.jpg"] == "its pair listed/fourth has no usable target"


def test_what_an_adapter_skips_is_quarantined_in_its_place(many: Path, tmp_path: Path) -> None:
    class Skipping(Listed):
        def scan(self) -> Iterator[SourceRecord | Skipped]:
            yield self.skip(self.root / "notes.txt", "not a photo")
            yield from super().scan()
            yield self.skip(self.root / "99.jpg", MISSING)

    source = Skipping(many, ("06.jpg", {}), ("07.jpg", {}), ("08.jpg", {}))
    facts = tmp_path / "facts.sqlite"
    for out in ("first", "second"):
        manifest = build([source], tmp_path / out, BuildSettings(), photos_dir=many, facts=facts)
        assert [record.path for record in manifest] == ["06.jpg", "08.jpg"]
        found = [(entry.path, entry.reason) for entry in read_manifest(tmp_path / out).quarantine]
        assert [path for path, _ in found] == ["notes.txt", "07.jpg", "99.jpg"]
        assert found[0][1] == "not a photo" and found[2][1] == MISSING
    assert source.skipped == {"not a photo": 1, MISSING: 1}
    assert [record.path for record in source.records()] == ["06.jpg", "07.jpg", "08.jpg"]


def test_what_looks_like_a_photo_of_a_judging_split_can_be_left_out(many: Path, tmp_path: Path) -> None:
    def again(name: str, new: str) -> str:
        with Image.open(many / name) as image:
            image.save(many / new, quality=60)  # other bytes, the same look
        return new

    def member(pair: str | None, role: str | None, split: str) -> dict:
        return {"pair": pair, "role": role, "kind": pair and "restoration", "split": split}

    def entries() -> list[tuple[str, dict]]:
        return [
            ("10.jpg", member("v1", "input", "train")),
            ("11.jpg", member("v1", "target", "train")),
            ("12.jpg", member("v2", "input", "test")),
            (again("11.jpg", "seen.jpg"), member("v2", "target", "test")),
            ("13.jpg", member(None, None, "validation")),
            (again("13.jpg", "also.jpg"), member(None, None, "test")),
            ("14.jpg", member(None, None, "train")),
            (again("14.jpg", "same-split.jpg"), member(None, None, "train")),
        ]

    everything = build([Listed(many, *entries())], tmp_path / "all", BuildSettings(), photos_dir=many)
    assert len(everything) == 8
    settings = BuildSettings(overlap_distance=6)
    manifest = build([Listed(many, *entries())], tmp_path / "out", settings, photos_dir=many)
    assert {entry.path: entry.reason for entry in manifest.quarantine} == {
        "10.jpg": "its pair listed/v1 has no usable target",
        "11.jpg": "looks like seen.jpg of the test split",
        "13.jpg": "looks like also.jpg of the test split",
    }
    assert [r.path for r in manifest] == ["12.jpg", "seen.jpg", "also.jpg", "14.jpg", "same-split.jpg"]


def test_datasets_are_named_in_the_settings(many: Path, photos_dir: Path, tmp_path: Path) -> None:
    own = DatasetSettings(name="single_folder", root=many, options={"dataset": "mine", "licence": "CC-BY-4.0"})
    settings = IngestSettings(sources=(own,))
    manifest = build_manifest(photos_dir, photos_dir / "ATTRIBUTION.csv", tmp_path / "out", settings)
    datasets = [record.dataset for record in manifest]
    assert datasets == ["sample"] * 6 + ["mine"] * 47
    last = list(manifest)[-1]
    assert (last.id, last.path, last.licence) == ("mine/47.jpg", (many / "47.jpg").as_posix(), "CC-BY-4.0")
    assert read_photo(photos_dir / last.path).width == 64  # absolute paths read from any photo directory
    first = next(iter(manifest))
    assert (first.mos, first.mos_original, first.mos_low, first.mos_high) == (71.5, 71.5, 0.0, 100.0)
    assert first.mos_ascending is True
    with pytest.raises(ValueError, match="unknown dataset 'imagenet'"):
        DatasetSettings(name="imagenet", root=many)


def test_facts_are_those_of_the_upright_picture(tmp_path: Path, photo_factory: Callable[..., Tensor]) -> None:
    pixels = photo_factory(540, 720, seed=1)
    whole = Image.fromarray((pixels * 255).to(torch.uint8).permute(1, 2, 0).numpy())
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    whole.rotate(90, expand=True).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    whole.save(tmp_path / "upright.png")
    write_photo(Photo(pixels, bit_depth=16), tmp_path / "deep.png")
    found = {path.name: read_facts(path, MAX_PIXELS) for path in tmp_path.iterdir()}
    reference = int(str(imagehash.phash(whole)), 16)
    for name, facts in found.items():
        assert (facts.width, facts.height, facts.reason) == (720, 540, None), name
        assert (int(facts.perceptual_hash, 16) ^ reference).bit_count() <= 2, name
    assert found["deep.png"].bit_depth == 16 and found["turned.jpg"].bit_depth == 8
    assert found["deep.png"].perceptual_hash == perceptual_hash(read_photo(tmp_path / "deep.png").pixels)
    assert "more than the limit" in read_facts(tmp_path / "upright.png", 1000).reason


def test_facts_are_of_what_the_library_reads(tmp_path: Path, photo_factory: Callable[..., Tensor]) -> None:
    """Pillow reads no JPEG without an end marker; the library does, where all its data is there."""
    stream = io.BytesIO()
    samples = (photo_factory(160, 240) * 255).byte().permute(1, 2, 0).numpy()
    Image.fromarray(samples).save(stream, "JPEG", quality=95)
    (tmp_path / "whole.jpg").write_bytes(stream.getvalue())
    (tmp_path / "mended.jpg").write_bytes(stream.getvalue()[:-2])
    (tmp_path / "half.jpg").write_bytes(stream.getvalue()[: len(stream.getvalue()) // 2])
    whole, mended, half = (read_facts(tmp_path / f"{name}.jpg", MAX_PIXELS) for name in ("whole", "mended", "half"))
    assert mended.reason is None and (mended.width, mended.height) == (240, 160)
    assert (int(whole.perceptual_hash, 16) ^ int(mended.perceptual_hash, 16)).bit_count() <= 4
    assert "truncated" in half.reason
