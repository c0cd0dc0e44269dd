"""Pairs: recorded so exactly that they rebuild to the same bytes, independent of each other, and resumable."""

import hashlib
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from components.data import synthesis
from components.data.aligned import aligned_pairs
from components.data.crops import take_crop
from components.data.pairs import KINDS, PairReader, rebuild_pair
from components.data.records import Manifest
from components.data.synthesis import ASSETS, SynthesisSettings, synthesize
from components.imaging.photo import Photo, quantize, write_photo
from components.photometry.assets import decode_cutout
from components.photometry.looks import Look, format_cube
from components.photometry.operations import DEGRADATIONS, TONE, Operation, apply_operations
from tests.data.builders import record
from tests.photometry.reference import subject_mask

pytestmark = pytest.mark.slow

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

    def dying(record, *arguments):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(record.id)
        return original(record, *arguments)

    resumed = tmp_path / "resumed"
    monkeypatch.setattr(synthesis, "pairs_of_photo", dying)
    with pytest.raises(KeyboardInterrupt):
        synthesize(manifest, photos_dir, resumed, SMALL)
    with pytest.raises(FileNotFoundError, match="synthesize"):
        PairReader(resumed)
    assert [path.name for path in resumed.iterdir()] == ["pairs-00000-of-00003.tar"]
    (resumed / "pairs-00001-of-00003.tar").write_bytes(b"half a shard")
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
    assert sorted(contents(pairs_dir)) == ["index.parquet", "pairs-00000-of-00001.tar"]
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
    assert {*KINDS} - {"look"} == {pair.kind for pair in PairReader(pairs_dir)}


NONE = dict.fromkeys(KINDS, 0)
FEW = SynthesisSettings(short_side=48, photos_per_shard=2, **NONE)


def without(settings: SynthesisSettings, **changes: object) -> SynthesisSettings:
    return settings.model_copy(update=changes)


def test_an_enhancement_can_carry_damage_and_have_a_least_score(
    manifest: Manifest, photos_dir: Path, tmp_path: Path
) -> None:
    settings = without(FEW, enhancement=4, enhancement_damage=1.0, enhancement_mos=80.0)
    synthesize(manifest, photos_dir, tmp_path / "pairs", settings)
    made = list(PairReader(tmp_path / "pairs"))
    assert len(made) == 5 * 4, "the photo rated 71.5 is no target"
    for pair in made:
        names = [operation.name for operation in pair.operations]
        assert names[0] in DEGRADATIONS and names[1:] and set(names[1:]) <= set(TONE)
        assert rebuild_pair(pair, photos_dir) == pair


def test_looks_are_applied_named_and_rebuilt(manifest: Manifest, photos_dir: Path, tmp_path: Path) -> None:
    table = torch.rand(4, 4, 4, 3, generator=torch.Generator().manual_seed(0))
    for name in ("velvia", "classic_negative"):
        table = table.flip(0)
        (tmp_path / f"{name}.cube").write_text(format_cube(Look(name, table)))
    looks = {name: tmp_path / f"{name}.cube" for name in ("velvia", "classic_negative")}
    out = tmp_path / "pairs"
    synthesize(manifest, photos_dir, out, without(FEW, look=2, looks=looks))
    made = list(PairReader(out))
    assert len(made) == 12 and len({pair.operations[0].asset for pair in made}) == 2
    for pair in made:
        assert rebuild_pair(pair, photos_dir, out / ASSETS) == pair
        assert pair.target().sub(apply_operations(pair.input(), pair.operations, out / ASSETS)).abs().max() <= 0.5 / 255
        assert ("velvia" in pair.instruction) != ("classic negative" in pair.instruction)
    before = contents(out / ASSETS)
    (tmp_path / "velvia.cube").write_text(format_cube(Look("other", table * 0.5)))
    synthesize(manifest, photos_dir, out, without(FEW, look=2, looks=looks))
    assert len(contents(out / ASSETS)) == 3 > len(before)
    assert {p.operations[0].asset for p in PairReader(out)} != {p.operations[0].asset for p in made}
    with pytest.raises(ValueError, match="looks"):
        synthesize(manifest, photos_dir, out, without(FEW, look=1))


def test_a_look_is_learned_from_graded_pairs_and_given_to_other_photos(
    manifest: Manifest, photos_dir: Path, tmp_path: Path, photo_factory
) -> None:
    def graded(picture: torch.Tensor, amount: float) -> torch.Tensor:
        return quantize(picture**amount * torch.tensor([1.0, 0.9, 0.8])[:, None, None])

    rows = []
    for number, (split, amount) in enumerate((("train", 1.3), ("train", 1.3), ("train", 0.2), ("test", 0.2))):
        before = quantize(photo_factory(72, 108, seed=20 + number))
        for role, picture in (("input", before), ("target", graded(before, amount))):
            name = f"{role}-{number}.png"
            write_photo(Photo(picture), photos_dir / name)
            digest = hashlib.sha256((photos_dir / name).read_bytes()).hexdigest()
            labels = ("look=velvia",) if role == "target" else ()
            pair = {"pair": f"filmset/{number}", "role": role, "kind": "retouching", "labels": labels}
            rows.append(record(name, sha256=digest, split=split, width=108, height=72, **pair))
    records, out = [*manifest, *rows], tmp_path / "pairs"
    synthesize(Manifest.of(records), photos_dir, out, without(FEW, look=1, learned_looks=2))
    made = [pair for pair in PairReader(out) if pair.input_path is None]
    assert len(made) == 6 and {len(pair.operations) for pair in made} == {1}
    for pair in made:
        assert "velvia" in pair.instruction and rebuild_pair(pair, photos_dir, out / ASSETS) == pair
        assert (pair.target() - graded(pair.input(), 1.3)).abs().mean() < 0.03
    assert len(list((out / ASSETS).iterdir())) == 1
    with pytest.raises(ValueError, match="expected looks"):
        synthesize(manifest, photos_dir, tmp_path / "none", without(FEW, look=1, learned_looks=2))


def test_published_pairs_are_kept_and_stacked_with_tone_faults(
    manifest: Manifest, photos_dir: Path, tmp_path: Path, photo_factory
) -> None:
    better = photo_factory(72, 108, seed=11)
    worse = quantize(apply_operations(better, [Operation(name="motion_blur", amount=0.1, seed=3)]))
    found = []
    for role, pixels in (("input", worse), ("target", better)):
        write_photo(Photo(pixels), photos_dir / f"{role}.png")
        content = (photos_dir / f"{role}.png").read_bytes()
        labels = ("motion_blur",) if role == "input" else ()
        fields = {"pair": "gopro/1", "role": role, "kind": "restoration", "labels": labels, "dataset": "gopro"}
        found.append(record(f"{role}.png", sha256=hashlib.sha256(content).hexdigest(), width=108, height=72, **fields))
    out = tmp_path / "pairs"
    synthesize(Manifest.of(found), photos_dir, out, without(FEW, stacked=2))
    plain, *stacked = PairReader(out)
    assert (plain.kind, plain.operations, plain.input_path) == ("restoration", (), "input.png")
    assert torch.equal(plain.input(), take_crop(worse, plain.view))
    assert torch.equal(plain.target(), take_crop(quantize(better), plain.view))
    assert any(word in plain.instruction.lower() for word in ("blur", "shake"))
    assert len(stacked) == 2
    for pair in stacked:
        assert pair.kind == "multi_edit" and pair.operations and {one.name for one in pair.operations} <= set(TONE)
        expected = quantize(apply_operations(take_crop(worse, pair.view), pair.operations))
        assert torch.equal(pair.input(), expected)
        assert torch.equal(pair.target(), take_crop(quantize(better), pair.view))
        assert any(word in pair.instruction.lower() for word in ("blur", "shake"))
    for pair in (plain, *stacked):
        assert rebuild_pair(pair, photos_dir) == pair
    write_photo(Photo(better), photos_dir / "input.png")
    with pytest.raises(ValueError, match=r"input\.png.*SHA-256"):
        rebuild_pair(plain, photos_dir)


def test_pairs_that_cannot_be_laid_over_each_other_are_refused(photo_factory) -> None:
    photo, other = photo_factory(72, 108), photo_factory(60, 108, seed=1)
    with pytest.raises(ValueError, match=r"b\.png and a\.png: .* cannot be laid over each other; leave the pair out"):
        aligned_pairs(record("a.png"), photo, record("b.png"), other, 0, FEW)


def test_a_subject_stands_sharp_before_a_blurred_background(photos_dir: Path, tmp_path: Path, photo_factory) -> None:
    cutout = photo_factory(60, 40, seed=8)
    alpha = torch.zeros(1, 60, 40)
    alpha[:, 10:, 8:32] = 1
    write_photo(Photo(cutout, alpha=alpha), photos_dir / "cutout.png")
    rows = []
    for name, label in (("cutout.png", "foreground"), ("photo-1.jpg", "background")):
        content = hashlib.sha256((photos_dir / name).read_bytes()).hexdigest()
        rows.append(record(name, sha256=content, labels=(label,)))
    out = tmp_path / "pairs"
    synthesize(Manifest.of(rows), photos_dir, out, without(FEW, rendered=3))
    made = list(PairReader(out))
    assert [pair.operations[0].amount for pair in made] == sorted(pair.operations[0].amount for pair in made)
    for pair in made:
        assert rebuild_pair(pair, photos_dir, out / ASSETS) == pair
        (subject,) = pair.scene
        placed = decode_cutout((out / ASSETS / subject.asset).read_bytes())
        inside = subject_mask(pair.input(), placed, subject.amount, **subject.parameters)
        difference = (pair.input() - pair.target()).abs().amax(0)
        assert difference[inside > 0.999].max() == 0 < difference[inside == 0].mean()
        assert any(word in pair.instruction.lower() for word in ("background", "behind"))
    with pytest.raises(FileNotFoundError, match="asset"):
        rebuild_pair(made[0], photos_dir)
