"""The benchmark of the paper's counts: a corpus that is built once, and figures that say what they are."""

from pathlib import Path

import pytest
import torch

from benchmarks.scale import rows_of
from benchmarks.scale_corpus import PAIRS, build
from benchmarks.scale_load import in_memory
from components.annotation.records import read_annotations
from components.data.pairs import PairReader
from components.data.records import Manifest
from components.models.artist import Artist
from components.training.batches import PairBatches
from components.training.views import ViewBatches
from tests.data.builders import record
from tests.tiny_data import PHOTOS, write_annotations

KINDS = tuple(PAIRS)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("scale")
    write_annotations(folder / "other", folder / "photos")
    manifest = Manifest.of([record(f"photo-{number}.png") for number in range(len(PHOTOS))])
    build(folder / "corpus", 0.0005, manifest, folder / "photos")
    return folder, manifest


def test_a_corpus_has_its_share_of_the_papers_counts_under_ids_of_their_own(built: tuple[Path, Manifest]) -> None:
    corpus = build(built[0] / "corpus", 0.0005, built[1], built[0] / "photos")
    assert (corpus.views, corpus.of_pairs) == (40, 80 + 15 + 10)
    annotated = read_annotations(corpus.annotations)
    assert len(annotated) == len({entry.id for entry in annotated}) == 40
    assert sum(entry.split == "validation" for entry in annotated) == 4
    reader = PairReader(corpus.pairs)
    assert len(reader) == len(set(reader.column("id"))) == 105
    assert [reader.column("kind").count(kind) for kind in KINDS] == [80, 15, 10]
    views = ViewBatches(read_annotations(corpus.annotations, "train"), built[0] / "photos")
    assert len(next(views.in_order(5)).views) == 5


def test_what_is_there_is_not_built_again(built: tuple[Path, Manifest]) -> None:
    pairs = built[0] / "corpus" / "pairs"
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in pairs.iterdir()}
    (pairs / "index.parquet").unlink()
    (pairs / "enhancement-00000.tar").write_bytes(b"half a shard")
    build(built[0] / "corpus", 0.0005, built[1], built[0] / "photos")
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in pairs.iterdir()}
    assert {name: content for name, (content, _) in after.items()} == {n: content for n, (content, _) in before.items()}
    assert after["restoration-00000.tar"][1] == before["restoration-00000.tar"][1]


def test_pictures_in_memory_are_loaded_once(
    built: tuple[Path, Manifest], artist: Artist, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    original = PairReader.__getitem__
    monkeypatch.setattr(PairReader, "__getitem__", lambda self, index: (read.append(index), original(self, index))[1])
    with in_memory():
        draws = [
            PairBatches(built[0] / "corpus" / "pairs", "train", KINDS, artist).draw(6, torch.Generator().manual_seed(0))
            for _ in range(2)
        ]
    assert len(read) == 6 and torch.equal(draws[0].inputs, draws[1].inputs)


def test_targets_are_held_against_the_figures() -> None:
    few = {"first_step": 10.0, "restart": 10.0, "peak_bytes": 1e9, "step": 1.0, "step_in_memory": 1.0, "validation": 5}
    many = few | {"first_step": 61.0, "restart": 50.0, "peak_bytes": 2.5e9, "step": 1.08}
    rows = rows_of("train_artist", few, many, (100, 400))
    assert [row.ok for row in rows] == [False, True, False, True, False, True]
    assert "400 samples" in rows[0].name and rows[0].peer == 10.0
    assert all(row.ok for row in rows_of("train_artist", few, few, (100, 400)))
