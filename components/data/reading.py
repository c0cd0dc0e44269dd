"""Every file that datasets name, with its facts: remembered, or read by threads in the order of the datasets.

That a file is damaged is a fact of its bytes. That the system cannot read it is none: such an error goes to the caller
as it is, and nothing of it is remembered.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from components.data.facts import FactStore, FileFacts, read_facts
from components.data.sources.base import Skipped, Source, SourceRecord

_AHEAD = 16  # files a worker that are read before their turn, so that a slow one holds nobody up
_NAMED = 5  # files in the message about those that cannot be read


class UnreadFilesError(OSError):
    """More files cannot be read than a build does without; the message names them and where they should be mounted."""


class _Waiting(NamedTuple):
    entry: SourceRecord | Skipped
    path: Path
    status: os.stat_result | None
    facts: "FileFacts | OSError | Future[FileFacts]"


def read_sources(
    sources: Iterable[Source], store: FactStore, max_pixels: int, workers: int
) -> Iterator[tuple[SourceRecord | Skipped, Path, FileFacts | OSError]]:
    """Every entry with the facts of its file, or the error that kept it from being read.

    Facts are remembered ones, or read by ``workers`` threads, a bounded number ahead. Each source is surveyed once; how
    much is left of it is told from the build before.
    """
    waiting: deque[_Waiting] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ingest")

    def resolve(progress: tqdm) -> tuple[SourceRecord | Skipped, Path, FileFacts | OSError]:
        entry, path, status, facts = waiting.popleft()
        if isinstance(facts, Future):
            try:
                facts = facts.result()
            except OSError as error:
                facts = _not_read(error)
            else:
                assert status is not None  # only files whose status is known are read
                store.put(path, status, max_pixels, facts)
        progress.update(1)
        return entry, path, facts

    try:
        for source in sources:
            root = source.root.resolve()
            with tqdm(total=store.length(root), desc=f"ingest {source.dataset}", unit="photo") as progress:
                for entry in source.survey():
                    waiting.append(_looked_up(entry, root / entry.path, max_pixels, store, pool))
                    if len(waiting) >= workers * _AHEAD:
                        yield resolve(progress)
                while waiting:
                    yield resolve(progress)
                store.remember_length(root, progress.n)
    finally:
        pool.shutdown(cancel_futures=True)


def _looked_up(
    entry: SourceRecord | Skipped, path: Path, max_pixels: int, store: FactStore, pool: ThreadPoolExecutor
) -> _Waiting:
    if isinstance(entry, Skipped):
        return _Waiting(entry, path, None, FileFacts(reason=entry.reason))
    try:
        status = path.stat()
    except OSError as error:
        return _Waiting(entry, path, None, _not_read(error))
    known = store.get(path, status, max_pixels)
    return _Waiting(entry, path, status, known or pool.submit(read_facts, path, max_pixels, status.st_size))


def _not_read(error: OSError) -> FileFacts | OSError:
    """That there is no such file is a fact, for this build; any other error says nothing of the file."""
    missing = isinstance(error, FileNotFoundError | NotADirectoryError)
    return FileFacts(reason="the file is missing") if missing else error


def unread_text(unread: Sequence[tuple[Path, OSError]]) -> str:
    """What could not be read, and where the last of it should be mounted."""
    path = unread[-1][0]
    mount = next(folder for folder in path.parents if folder.is_mount() or folder == folder.parent)
    named = "; ".join(f"{path}: {error.strerror or error}" for path, error in unread[:_NAMED])
    return (
        f"{len(unread)} files cannot be read ({named}): the last lies on what is mounted at {mount}. Check that it is "
        f"there and that this user may read it, then start again: nothing of this is remembered, what could be read "
        f"is. A build does without as many files as max_unread says"
    )
