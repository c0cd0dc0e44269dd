"""Pairs: recorded so exactly that they rebuild to the same bytes, independent of each other, and resumable."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from components.data import synthesis
from components.data.pairs import KINDS, PairReader, rebuild_pair
from components.data.records import Manifest
from components.data.synthesis import SynthesisSettings, synthesize
from components.images import quantize
from components.photometry.operations import DEGRADATIONS, TONE, apply_operations

SMALL = SynthesisSettings(
    short_side=48, retouching=2, restoration=2, multi_edit=1, depth_of_field=3, enhancement=2, photos_per_shard=2
)


@pytest.fixture
def pairs_dir(manifest: Manifest, photos_dir: Path, tmp_path: Path) -> Path:
    synthesize(manifest, photos_dir, tmp_path / "pairs", SMALL)
    return tmp_path / "pairs"


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_every_pair_rebuilds_to_the_same_bytes(pairs_dir: Path, photos_dir: Path) -> None:
    reader = PairReader(pairs_dir)
    assert len(reader) == 6 * 10 == len({pair.id for pair in reader})
    for pair in reader:
        assert rebuild_pair(pair, photos_dir) == pair


def test_input_and_target_differ_by_the_recorded_operations(pairs_dir: Path) -> None:
    for pair in PairReader(pairs_dir):
        before, after = pair.input(), pair.target()
        if pair.kind == "depth_of_field":
            before, after = after, before
        assert torch.equal(before, quantize(apply_operations(after, pair.operations)))
        assert before.shape == after.shape and min(before.shape[-2:]) == 48
        assert not torch.equal(before, after)


def test_kinds_hold_what_they_are_called(pairs_dir: Path, manifest: Manifest) -> None:
    for pair in PairReader(pairs_dir):
        tone = [operation.name in TONE for operation in pair.operations]
        names = {operation.name for operation in pair.operations}
        if pair.kind in ("retouching", "enhancement"):
            assert all(tone) and 1 <= len(tone) <= 3
        elif pair.kind == "restoration":
            assert tone == [False] and names <= set(DEGRADATIONS) - {"bokeh"}
        elif pair.kind == "multi_edit":
            assert tone[0] is False and all(tone[1:]) and len(tone) >= 2
        else:
            assert names == {"bokeh"}
    levels = {pair.operations[0].amount for pair in PairReader(pairs_dir, kinds=["depth_of_field"])}
    assert len(levels) == 3
    singles = [pair for pair in PairReader(pairs_dir, kinds=["retouching"]) if pair.id.endswith("-00")]
    assert all(len(pair.operations) == 1 for pair in singles)


def test_the_reader_selects_by_split_and_kind(pairs_dir: Path, manifest: Manifest) -> None:
    splits = {record.id: record.split for record in manifest}
    assert len(set(splits.values())) == 3
    for split, photos in Counter(splits.values()).items():
        reader = PairReader(pairs_dir, split, ["enhancement", "restoration"])
        assert len(reader) == 4 * photos
        assert all(splits[pair.photo_id] == split == pair.split for pair in reader)
    assert reader[len(reader) - 1] == list(reader)[-1]
    with pytest.raises(IndexError):
        reader[len(reader)]


def test_pairs_do_not_depend_on_other_photos_or_kinds(
    pairs_dir: Path, manifest: Manifest, photos_dir: Path, tmp_path: Path
) -> None:
    fewer = Manifest.of(list(manifest)[3:4])
    settings = SMALL.model_copy(update={"retouching": 0, "enhancement": 1})
    synthesize(fewer, photos_dir, tmp_path / "fewer", settings)
    known = {pair.id: pair for pair in PairReader(pairs_dir)}
    alone = list(PairReader(tmp_path / "fewer"))
    assert len(alone) == 7 and all(known[pair.id] == pair for pair in alone)


def test_another_seed_gives_other_pairs(pairs_dir: Path, manifest: Manifest, photos_dir: Path, tmp_path: Path) -> None:
    synthesize(manifest, photos_dir, tmp_path / "other", SMALL.model_copy(update={"seed": 1}))
    for a, b in zip(PairReader(pairs_dir), PairReader(tmp_path / "other"), strict=True):
        assert (a.id == b.id and a.operations != b.operations) or a.kind == "depth_of_field"


def test_a_killed_run_goes_on_with_the_shards_it_has(
    pairs_dir: Path, manifest: Manifest, photos_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    original = synthesis.pairs_of_photo

    def dying(record, pixels, settings):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(record.id)
        return original(record, pixels, settings)

    resumed = tmp_path / "resumed"
    monkeypatch.setattr(synthesis, "pairs_of_photo", dying)
    with pytest.raises(KeyboardInterrupt):
        synthesize(manifest, photos_dir, resumed, SMALL)
    with pytest.raises(FileNotFoundError, match="synthesize"):
        PairReader(resumed)
    assert [path.name for path in resumed.iterdir()] == ["pairs-00000-of-00003.arrow"]
    (resumed / "pairs-00001-of-00003.arrow").write_bytes(b"half a shard")
    made.clear()
    monkeypatch.setattr(synthesis, "pairs_of_photo", lambda *a: (made.append(a[0].id), original(*a))[1])
    synthesize(manifest, photos_dir, resumed, SMALL)
    assert len(made) == 4
    assert contents(resumed) == contents(pairs_dir)


def test_other_settings_or_photos_are_made_anew(
    pairs_dir: Path, manifest: Manifest, photos_dir: Path, tmp_path: Path
) -> None:
    larger = SMALL.model_copy(update={"photos_per_shard": 6, "short_side": 32})
    synthesize(manifest, photos_dir, pairs_dir, larger)
    assert sorted(contents(pairs_dir)) == ["pairs-00000-of-00001.arrow", "pairs.json"]
    assert all(min(pair.input().shape[-2:]) == 32 for pair in PairReader(pairs_dir))


def test_a_changed_source_photo_is_noticed(pairs_dir: Path, photos_dir: Path) -> None:
    pair = PairReader(pairs_dir)[0]
    other = next(path for path in photos_dir.glob("*.jpg") if path.name != pair.photo_path)
    shutil.copy(other, photos_dir / pair.photo_path)
    with pytest.raises(ValueError, match="SHA-256"):
        rebuild_pair(pair, photos_dir)


def test_unknown_kinds_and_splits_are_named(pairs_dir: Path) -> None:
    with pytest.raises(ValueError, match="sharpening"):
        PairReader(pairs_dir, kinds=["sharpening"])
    with pytest.raises(ValueError, match="holdout"):
        PairReader(pairs_dir, split="holdout")
    assert set(KINDS) == {pair.kind for pair in PairReader(pairs_dir)}
