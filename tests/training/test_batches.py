"""Batches of pairs: one aspect each, drawn in proportion and by the generator alone, or all in order."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from components.data.pairs import PairReader
from components.data.samples import SampleError
from components.imaging.photo import resize
from components.models.artist import Artist
from components.parallel import ranks
from components.training.batches import PairBatches
from components.training.loading import LoadingSettings
from tests.tiny_data import write_pairs


@pytest.fixture(scope="module")
def pairs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), ("retouching", "enhancement"), each=3)


def test_a_batch_has_one_aspect_and_the_pictures_of_its_pairs(artist: Artist, pairs_dir: Path) -> None:
    batches = PairBatches(pairs_dir, "train", ["enhancement"], artist)
    assert len(batches) == 9
    shapes = set()
    for seed in range(8):
        batch = batches.draw(2, torch.Generator().manual_seed(seed))
        assert batch.inputs.shape == batch.targets.shape and len(batch.pairs) == len(batch.views) == 2
        size = tuple(batch.inputs.shape[-2:])
        shapes.add(size)
        for pair, view, picture, target in zip(batch.pairs, batch.views, batch.inputs, batch.targets, strict=True):
            assert artist.working_size(*view.shape[-2:]) == size
            assert torch.equal(view, pair.input())
            assert torch.equal(picture, resize(pair.input(), size))
            assert torch.equal(target, resize(pair.target(), size))
        assert batch.instructions == [pair.instruction for pair in batch.pairs]
    assert shapes == {(24, 40), (40, 24)}


def test_sizes_are_columns_of_the_index_and_no_picture_is_opened_for_them(
    artist: Artist, pairs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = PairReader(pairs_dir)
    sizes = list(zip(reader.column("height"), reader.column("width"), strict=True))
    for pair, size in zip(reader, sizes, strict=True):
        assert pair.input().shape[-2:] == pair.target().shape[-2:] == size
    read: list[int] = []
    monkeypatch.setattr(PairReader, "__getitem__", lambda self, index: read.append(index))
    assert len(PairBatches(pairs_dir, "train", ["enhancement"], artist).buckets) == 2 and not read


def test_buckets_are_drawn_in_proportion_to_their_pairs(artist: Artist, pairs_dir: Path) -> None:
    batches = PairBatches(pairs_dir, "train", ["enhancement"], artist)
    generator = torch.Generator().manual_seed(0)
    counts = Counter(tuple(batches.draw(1, generator).inputs.shape[-2:]) for _ in range(300))
    assert counts[(24, 40)] / 300 == pytest.approx(2 / 3, abs=0.1)


def test_a_pair_is_repeated_only_when_the_bucket_is_used_up(artist: Artist, pairs_dir: Path) -> None:
    batches = PairBatches(pairs_dir, "train", ["enhancement"], artist)
    for seed in range(6):
        for count in (1, 3, 6, 14):
            batch = batches.draw(count, torch.Generator().manual_seed(seed))
            available = 6 if batch.inputs.shape[-1] == 40 else 3
            times = Counter(pair.id for pair in batch.pairs)
            assert sum(times.values()) == count
            assert max(times.values()) == -(-count // available)
            assert len(times) == min(count, available)


def test_draws_depend_on_the_generator_alone(artist: Artist, pairs_dir: Path) -> None:
    def ids(seed: int) -> list[str]:
        generator = torch.Generator().manual_seed(seed)
        batches = PairBatches(pairs_dir, "train", ["retouching", "enhancement"], artist)
        return [pair.id for _ in range(4) for pair in batches.draw(2, generator).pairs]

    assert ids(0) == ids(0) != ids(1)


def test_in_order_every_pair_comes_once_and_always_alike(artist: Artist, pairs_dir: Path) -> None:
    batches = PairBatches(pairs_dir, "train", ["retouching", "enhancement"], artist)
    first, again = list(batches.in_order(4)), list(batches.in_order(4))
    assert [len(batch.pairs) for batch in first] == [4, 4, 4, 4, 2]
    ids = [pair.id for batch in first for pair in batch.pairs]
    assert sorted(ids) == sorted(pair.id for pair in PairReader(pairs_dir, "train"))
    assert ids == [pair.id for batch in again for pair in batch.pairs]
    for batch in first:
        assert len({view.shape for view in batch.views}) == 1


def test_an_empty_selection_is_an_error(artist: Artist, pairs_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"no pairs of the split 'test' and the kinds \['enhancement'\]"):
        PairBatches(pairs_dir, "test", ["enhancement"], artist)


def test_what_is_expected_is_what_comes_and_takes_nothing_from_the_generator(artist: Artist, pairs_dir: Path) -> None:
    plain, ahead = (PairBatches(pairs_dir, "train", ["retouching"], artist) for _ in range(2))
    generators = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    read: list[int] = []
    load = ahead.loader._load
    ahead.loader._load = lambda index: (read.append(index), load(index))[1]
    for _ in range(5):
        ahead.expect(4, generators[1])
        found, expected = ahead.draw(4, generators[1]), plain.draw(4, generators[0])
        assert [pair.id for pair in found.pairs] == [pair.id for pair in expected.pairs]
        assert torch.equal(found.inputs, expected.inputs) and torch.equal(found.targets, expected.targets)
        assert len(read) == len({pair.id for pair in found.pairs}), "nothing is loaded twice, or for nothing"
        read.clear()


@pytest.mark.parametrize("ranks_", [2, 3, 7])
def test_ranks_open_their_own_rows_of_the_same_batches(
    artist: Artist, pairs_dir: Path, monkeypatch: pytest.MonkeyPatch, ranks_: int
) -> None:
    def drawn() -> tuple[list[str], list[list[str]]]:
        generator = torch.Generator().manual_seed(1)
        batches = PairBatches(pairs_dir, "train", ["retouching", "enhancement"], artist)
        ids = [pair.id for _ in range(3) for pair in batches.draw(7, generator).pairs]
        return ids, [[pair.id for pair in batch.pairs] for batch in batches.in_order(4)]

    whole, in_order = drawn()
    monkeypatch.setattr(ranks, "world_size", lambda: ranks_)
    found: list[list[list[str]]] = []
    for rank in range(ranks_):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        ids, parts = drawn()
        found.append([ids, *parts])
    share = [len(part[0]) // 3 for part in found]
    steps = [[part[0][step * n : (step + 1) * n] for part, n in zip(found, share, strict=True)] for step in range(3)]
    assert [pair for step in steps for part in step for pair in part] == whole
    for number, expected in enumerate(in_order, start=1):
        parts = [part[number] for part in found]
        assert max(map(len, parts)) == -(-len(expected) // ranks_)
        assert [pair for part in parts[: len(expected)] for pair in part] == expected


def test_kinds_are_mixed_by_weight(artist: Artist, pairs_dir: Path) -> None:
    kinds = ("retouching", "enhancement")
    batches = PairBatches(pairs_dir, "train", kinds, artist, weights={"retouching": 3.0})
    generator = torch.Generator().manual_seed(0)
    counts = Counter(batches.draw(1, generator).pairs[0].kind for _ in range(400))
    assert counts["retouching"] / 400 == pytest.approx(3 / 4, abs=0.06)
    batch = batches.draw(5, generator)
    assert len({pair.id for pair in batch.pairs}) == 5
    alone = PairBatches(pairs_dir, "train", kinds, artist, weights={"enhancement": 0.0})
    assert {pair.kind for _ in range(20) for pair in alone.draw(5, generator).pairs} == {"retouching"}


def test_a_picture_that_does_not_decode_is_named_or_left_out_where_that_is_allowed(
    artist: Artist, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_pairs(tmp_path / "pairs", ("retouching",), each=2)
    reader = PairReader(folder, "train")
    bad = reader[0]
    shard = folder / "pairs.tar"
    content = shard.read_bytes()
    begin = content.index(bad.input_png) + 30
    shard.write_bytes(content[:begin] + bytes(40) + content[begin + 40 :])
    with pytest.raises(SampleError, match=f"{reader.shards.key(0)}: expected a complete PNG"):
        list(PairBatches(folder, "train", ["retouching"], artist).in_order(4))
    allowed = PairBatches(folder, "train", ["retouching"], artist, LoadingSettings(max_unreadable=1))
    for _ in range(2):
        ids = [pair.id for batch in allowed.in_order(4) for pair in batch.pairs]
        assert bad.id not in ids and len(ids) == len(reader) and ids[0] == ids[1], "the next one takes its place"
    assert allowed.loader.unreadable == {0}
    assert caplog.text.count("left out, 1 of 1 at most") == 1
