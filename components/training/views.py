"""Batches of annotated views: drawn by a generator alone, and rendered from their photos ahead of their step."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from components.annotation.records import AnnotatedPhoto, Annotations, render_view
from components.data.samples import SampleError
from components.imaging.photo import Photo, UnreadablePhoto, read_photo
from components.parallel.ranks import Share, share
from components.parallel.sharding import slices
from components.training.held_out import HeldOutSettings, subset
from components.training.loading import Kept, Loader, LoadingSettings

View = tuple[Tensor, str]
"""A picture (3, h, w) in [0, 1], and the completion to learn about it."""
_VIEWS, _PHOTOS = 2**28, 2**28  # bytes of each that a rank keeps: all of a few dozen photos


@dataclass(frozen=True)
class ViewBatch:
    """This rank's views of a batch.

    Attributes:
        views: pictures with their completions.
        texts: the completions of the whole batch.
        share: which of its views these are.
    """

    views: list[View]
    texts: list[str]
    share: Share

    def split(self, at_once: int | None) -> list[tuple[list[View], Share]]:
        """The views in parts of at most `at_once`, each with its share; all in one when it is None."""
        parts = zip(slices(len(self.views), at_once), self.share.split(at_once), strict=True)
        return [(self.views[rows], mine) for rows, mine in parts]


class ViewBatches:
    """Annotated views as batches, of which each rank renders its share.

    Args:
        annotations: of the views.
        photos_dir: folder that their paths are relative to.
        held_out: which part of them is taken, if not all are.
    """

    def __init__(
        self,
        annotations: Annotations,
        photos_dir: Path,
        loading: LoadingSettings | None = None,
        held_out: HeldOutSettings | None = None,
    ):
        self.annotations, self.photos_dir = annotations, Path(photos_dir)
        self._chosen = list(range(len(annotations)))
        if held_out is not None and len(annotations) > held_out.samples:
            keys, strata = zip(*((entry.id, _stratum(entry)) for entry in annotations), strict=True)
            self._chosen = subset(keys, strata, held_out)
        self._views: Kept[tuple[Tensor, str]] = Kept(_VIEWS)
        self._photos: Kept[Photo] = Kept(_PHOTOS)
        self.loader = Loader(self._load, lambda number: (number + 1) % len(annotations), loading or LoadingSettings())

    def __len__(self) -> int:
        return len(self._chosen)

    def draw(self, count: int, generator: torch.Generator) -> ViewBatch:
        """Views drawn with repetition; ranks must draw with generators in the same state."""
        return self._batch(self._drawn(count, generator))

    def expect(self, count: int, generator: torch.Generator) -> None:
        """Begin to render what `draw` will give with a generator in this state, which stays as it is."""
        ahead = torch.Generator()
        ahead.set_state(generator.get_state())
        self.loader.expect(share(count).of(self._drawn(count, ahead)))

    def in_order(self, count: int) -> Iterator[ViewBatch]:
        """All views once, in batches of at most `count`."""
        batches = [self._chosen[rows] for rows in slices(len(self), count)]
        for number, rows in enumerate(batches):
            batch = self._batch(rows)
            if number + 1 < len(batches):
                self.loader.expect(share(len(batches[number + 1])).of(batches[number + 1]))
            yield batch

    def _drawn(self, count: int, generator: torch.Generator) -> list[int]:
        return [self._chosen[row] for row in torch.randint(len(self), (count,), generator=generator).tolist()]

    def _batch(self, numbers: list[int]) -> ViewBatch:
        mine = share(len(numbers))
        loaded = self.loader.take(mine.of(numbers))
        views = [(samples.float() / 255, text) for samples, text in loaded]
        return ViewBatch(views, [self.annotations[number].completion for number in numbers], mine)

    def _load(self, number: int) -> tuple[Tensor, str]:
        """A view as 8-bit samples, which hold it exactly, and its completion."""
        known = self._views.get(number)
        if known is not None:
            return known
        entry = self.annotations[number]
        try:
            samples = (render_view(self._photo(entry.path), entry) * 255).round().to(torch.uint8)
        except UnreadablePhoto as error:
            raise SampleError(f"{entry.id}: {error}") from error
        self._views.put(number, (samples, entry.completion), samples.numel())
        return samples, entry.completion

    def _photo(self, path: str) -> Photo:
        photo = self._photos.get(path)
        if photo is None:
            photo = read_photo(self.photos_dir / path)
            self._photos.put(path, photo, photo.pixels.nbytes)
        return photo


def _stratum(entry: AnnotatedPhoto) -> str:
    """Views without a fault, and those with one, by the first."""
    return entry.operations[0].name if entry.operations else ""
