"""Batches of pairs: one aspect each, drawn in proportion and by the generator alone, or all in order."""

import struct
from collections import Counter
from pathlib import Path

import pytest
import torch

from components.data.pairs import PairReader
from components.imaging.photo import resize
from components.models.artist import Artist
from components.training.batches import PairBatches
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


def test_the_size_is_read_off_the_png_header(pairs_dir: Path) -> None:
    for pair in PairReader(pairs_dir):
        width, height = struct.unpack(">II", pair.input_png[16:24])
        assert pair.input().shape == (3, height, width)


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
    first, again = batches.in_order(4), batches.in_order(4)
    assert [len(batch.pairs) for batch in first] == [4, 4, 4, 4, 2]
    ids = [pair.id for batch in first for pair in batch.pairs]
    assert sorted(ids) == sorted(pair.id for pair in PairReader(pairs_dir, "train"))
    assert ids == [pair.id for batch in again for pair in batch.pairs]
    for batch in first:
        assert len({view.shape for view in batch.views}) == 1


def test_an_empty_selection_is_an_error(artist: Artist, pairs_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"no pairs of the split 'test' and the kinds \['enhancement'\]"):
        PairBatches(pairs_dir, "test", ["enhancement"], artist)
