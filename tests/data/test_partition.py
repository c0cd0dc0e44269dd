"""Shards of a manifest: every photo in one, the rest untouched by a change, and all put together as if never apart."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from components.annotation.annotations import DROPPED_FILE, AnnotationSettings, annotate, merge_annotations
from components.annotation.annotators import AnnotationRequest, AnnotatorAnswer, OfflineAnnotator
from components.annotation.records import ANNOTATIONS_FILE
from components.data.pairs import KINDS, PairReader
from components.data.partition import ScaleOutSettings, by_photo, partition, shard_of
from components.data.records import Manifest, read_manifest
from components.data.synthesis import SynthesisSettings, merge_pairs, shared_photos, synthesize
from components.imaging.photo import Photo, quantize, write_photo
from tests.data.builders import record

pytestmark = pytest.mark.slow

VIEWS = AnnotationSettings(short_side=24, faulty_views=2)
PAIRS = SynthesisSettings(
    **(dict.fromkeys(KINDS, 0) | {"enhancement": 1, "look": 1}),
    short_side=32,
    stacked=1,
    rendered=2,
    learned_looks=2,
    photos_per_shard=4,
)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("shards", [1, 3, 512])
def test_each_photo_is_in_one_shard_in_order_and_its_versions_with_it(tmp_path: Path, shards: int) -> None:
    pairs = [record(f"{role}-{n}.png", pair=f"set/{n}", role=role) for n in range(40) for role in ("input", "target")]
    records = [*(record(f"{number}.jpg", mos=number) for number in range(200)), *pairs]
    folders = partition(Manifest.of(records, "revision"), tmp_path / "shards", shards)
    found = {number: read_manifest(folder) for number, folder in folders.items()}
    assert list(found) == sorted(found)
    assert shards == 512 or len(found) == shards
    assert sorted(row.id for shard in found.values() for row in shard) == sorted(row.id for row in records)
    for number, shard in found.items():
        rows = list(shard)
        assert rows == [row for row in records if shard_of(row.pair or row.id, shards) == number] != []
        assert (shard.data_revision, shard.quarantine, shard.shared) == (None, (), ())


def test_a_new_or_changed_photo_touches_the_bytes_of_its_shard_only(tmp_path: Path) -> None:
    records = [record(f"{number}.jpg") for number in range(13_000)]  # several batches, and several row groups a shard
    new, changed = record("new.jpg"), records[5].model_copy(update={"sha256": "f" * 64})
    after = [new, *records[:5], changed, *records[6:]]
    folders = [partition(Manifest.of(rows), tmp_path / str(len(rows)), 3) for rows in (records, after)]
    before, now = ({number: contents(folder) for number, folder in found.items()} for found in folders)
    touched = {shard_of(new.id, 3), shard_of(changed.id, 3)}
    assert len(touched) < 3
    assert {number for number in before if before[number] != now[number]} == touched


def test_a_number_of_shards_that_cannot_be_is_refused() -> None:
    for shards in (0, 513):
        with pytest.raises(ValueError, match="shards"):
            ScaleOutSettings(shards=shards)


class Grudging:
    """The offline annotator, in a random order, and without a verdict on the second view of any photo."""

    name = "grudging"

    def annotate(self, requests: Iterable[AnnotationRequest], receive: Callable[[AnnotatorAnswer], None]) -> None:
        def grudge(answer: AnnotatorAnswer) -> None:
            refused = answer.id.endswith("#01")
            receive(replace(answer, verdict=None, reason="refused: taste") if refused else answer)

        OfflineAnnotator().annotate(reversed(list(requests)), grudge)


def test_merged_annotations_are_those_of_the_whole_to_the_byte(
    manifest: Manifest, photos_dir: Path, tmp_path: Path
) -> None:
    annotate(manifest, photos_dir, tmp_path / "whole", VIEWS, Grudging())
    for shards in (1, 3):
        parts = []
        for number, folder in partition(manifest, tmp_path / f"of-{shards}", shards).items():
            parts.append(tmp_path / f"of-{shards}" / f"made-{number}")
            annotate(read_manifest(folder), photos_dir, parts[-1], VIEWS, Grudging())
        merged = tmp_path / f"merged-{shards}"
        assert merge_annotations(manifest, parts[::-1], merged) == {"annotated": 12, "dropped": 6}
        for name in (ANNOTATIONS_FILE, DROPPED_FILE):
            assert (merged / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert len(parts) > 1
    with pytest.raises(ValueError, match="part missing"):
        merge_annotations(manifest, parts[1:], tmp_path / "fewer")
    with pytest.raises(ValueError, match="more than one part"):
        merge_annotations(manifest, [*parts, parts[0]], tmp_path / "twice")
    fewer = Manifest.of(list(manifest)[:-1])
    with pytest.raises(ValueError, match="is not among the photos"):
        merge_annotations(fewer, parts, tmp_path / "others")
    assert not any(path.exists() for name in ("fewer", "twice", "others") for path in (tmp_path / name).glob("*.jsonl"))


@pytest.fixture
def everything(manifest: Manifest, photos_dir: Path, photo_factory: Callable[..., Tensor]) -> Manifest:
    """Photos on their own, backgrounds and cut-outs for them, and graded pairs of a look: pairs of all origins."""
    rows = list(manifest)
    rows[:3] = [row.model_copy(update={"labels": ("background",)}) for row in rows[:3]]

    def add(name: str, pixels: Tensor, alpha: Tensor | None = None, **fields: object) -> None:
        write_photo(Photo(pixels, alpha=alpha), photos_dir / name)
        digest = hashlib.sha256((photos_dir / name).read_bytes()).hexdigest()
        size = {"height": pixels.shape[-2], "width": pixels.shape[-1]}
        rows.append(record(name, sha256=digest, **size, **fields))

    for number, split in enumerate(("train", "validation", "test", "train")):
        alpha = torch.zeros(1, 60, 40)
        alpha[:, 10:, 8:32] = 1
        add(f"cutout-{number}.png", photo_factory(60, 40, seed=30 + number), alpha, split=split, labels=("foreground",))
    for number in range(4):
        before = quantize(photo_factory(72, 108, seed=20 + number))
        for role, pixels in (("input", before), ("target", quantize(before**1.3))):
            labels = ("look=velvia",) if role == "target" else ()
            more = {"pair": f"filmset/{number}", "role": role, "kind": "retouching", "labels": labels}
            add(f"{role}-{number}.png", pixels, **more)
    return Manifest.of(rows)


def test_merged_pairs_are_those_of_the_whole_to_the_byte(
    everything: Manifest, photos_dir: Path, tmp_path: Path
) -> None:
    synthesize(everything, photos_dir, tmp_path / "whole", PAIRS)
    whole = contents(tmp_path / "whole")
    assert len([name for name in whole if name.startswith("assets/")]) > 2, "a look, and cut-outs"
    folders = partition(everything, tmp_path / "shards", 3, shared_photos(everything, PAIRS))
    parts = [tmp_path / f"pairs-{number}" for number in folders]
    for folder, part in zip(folders.values(), parts, strict=True):
        synthesize(read_manifest(folder), photos_dir, part, PAIRS)
    assert len(parts) == 3
    counts = merge_pairs(everything, photos_dir, parts, tmp_path / "merged", PAIRS)
    assert contents(tmp_path / "merged") == whole
    assert sum(counts.values()) == sum(len(PairReader(part)) for part in parts) == len(PairReader(tmp_path / "whole"))
    fewer = Manifest.of(row for row in everything if row.id != "sample/photo-5.jpg")
    with pytest.raises(ValueError, match=r"photo-5\.jpg is not among the photos"):
        merge_pairs(fewer, photos_dir, parts, tmp_path / "others", PAIRS)


def test_a_shard_knows_the_photos_of_the_whole_that_its_own_are_worked_on_with(
    everything: Manifest, tmp_path: Path
) -> None:
    shared = shared_photos(everything, PAIRS)
    graded = [f"{role}-{number}.png" for number in range(2) for role in ("input", "target")]
    assert [row.path for row in shared] == [*(f"cutout-{number}.png" for number in range(4)), *graded]
    without_looks = shared_photos(everything, PAIRS.model_copy(update={"learned_looks": 0}))
    assert without_looks == shared[:4]
    for folder in partition(everything, tmp_path / "shards", 2, shared).values():
        assert list(read_manifest(folder).shared) == shared


def test_what_parts_hold_comes_in_the_order_of_the_manifest() -> None:
    records = [record(f"{number}.jpg") for number in range(5)]
    parts = [["sample/0.jpg:a", "sample/0.jpg:b", "sample/3.jpg:c"], [], ["sample/2.jpg:d"]]
    found = list(by_photo(records, parts, lambda item: item.partition(":")[0]))
    assert found == [["sample/0.jpg:a", "sample/0.jpg:b"], [], ["sample/2.jpg:d"], ["sample/3.jpg:c"], []]
    with pytest.raises(ValueError, match=r"sample/2\.jpg"):
        list(by_photo(records[::-1], [["sample/1.jpg:a", "sample/2.jpg:b"]], lambda item: item.partition(":")[0]))
