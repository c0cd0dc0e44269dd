"""Batches of annotated views: rendered bit for bit, on demand, the same for any number of ranks."""

from pathlib import Path

import pytest
import torch

from components.annotation.records import read_annotations, render_view
from components.data.samples import SampleError
from components.imaging.photo import read_photo
from components.parallel import ranks
from components.training import views as module
from components.training.loading import LoadingSettings
from components.training.views import ViewBatches
from tests.tiny_data import write_annotations


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("data")
    return write_annotations(folder / "annotations", folder / "photos", each=3), folder / "photos"


def test_views_are_rebuilt_bit_for_bit_and_what_was_rendered_is_kept(
    data: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    annotated = read_annotations(data[0], "train")
    read: list[Path] = []
    monkeypatch.setattr(module, "read_photo", lambda path: (read.append(path), read_photo(path))[1])
    batches = ViewBatches(annotated, data[1], LoadingSettings(workers=1))
    assert len(batches) == len(annotated) == 9 and not read
    for _ in range(2):
        views = [view for batch in batches.in_order(4) for view in batch.views]
        for (view, text), entry in zip(views, annotated, strict=True):
            assert text == entry.completion
            assert torch.equal(view, render_view(read_photo(data[1] / entry.path), entry))
        assert len(read) == 3, "every photo is decoded once"
    monkeypatch.setattr(module, "_VIEWS", 0)
    monkeypatch.setattr(module, "_PHOTOS", 0)
    frugal = ViewBatches(annotated, data[1])
    again = [view for batch in frugal.in_order(9) for view in batch.views]
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(views, again, strict=True))
    assert len(read) == 3 + 9, "what does not fit is made again"


def test_draws_are_those_of_the_generator_and_nothing_is_taken_from_it_ahead(data: tuple[Path, Path]) -> None:
    annotated = read_annotations(data[0], "train")
    batches = ViewBatches(annotated, data[1])
    generator, reference = torch.Generator().manual_seed(4), torch.Generator().manual_seed(4)
    for _ in range(3):
        batches.expect(5, generator)
        batch = batches.draw(5, generator)
        chosen = torch.randint(len(annotated), (5,), generator=reference).tolist()
        assert batch.texts == [annotated[number].completion for number in chosen]


def test_ranks_render_their_share_and_know_all_texts(data: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    batches = ViewBatches(read_annotations(data[0], "train"), data[1])
    whole = batches.draw(5, torch.Generator().manual_seed(2))
    monkeypatch.setattr(ranks, "world_size", lambda: 2)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        part = batches.draw(5, torch.Generator().manual_seed(2))
        assert part.texts == whole.texts
        parts += part.views
    assert [text for _, text in parts] == [text for _, text in whole.views]
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(parts, whole.views, strict=True))


def test_a_photo_that_does_not_decode_is_named(data: tuple[Path, Path], tmp_path: Path) -> None:
    annotated = read_annotations(data[0], "train")
    for photo in data[1].iterdir():
        (tmp_path / photo.name).write_bytes(photo.read_bytes())
    (tmp_path / annotated[3].path).write_bytes(b"no picture")
    with pytest.raises(SampleError, match=f"{annotated[3].id}.*max_unreadable"):
        list(ViewBatches(annotated, tmp_path).in_order(9))
    allowed = ViewBatches(annotated, tmp_path, LoadingSettings(max_unreadable=3))
    texts = [text for batch in allowed.in_order(9) for _, text in batch.views]
    assert len(texts) == 9 and not {annotated[number].completion for number in (3, 4, 5)} & set(texts)
    assert allowed.loader.unreadable == {3, 4, 5}
