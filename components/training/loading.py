"""Pictures ahead of time: samples are read, decoded and resized by threads before a step asks for them.

Threads and not processes: decoding and resizing hold no lock, a process costs the memory of an interpreter with torch,
and what threads make needs no copying. What is loaded early depends on nothing but the numbers that are asked for, so
the number of threads changes nothing that is learnt.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from pydantic import Field

from components.data.samples import SampleError
from components.strict import Strict

log = logging.getLogger(__name__)
T = TypeVar("T")


class LoadingSettings(Strict):
    """How the samples of a stage are loaded; nothing here changes what is learnt while all of them can be read."""

    workers: int = Field(default=2, gt=0, description="Threads of a rank that decode pictures ahead of its steps.")
    max_unreadable: int = Field(
        default=0,
        ge=0,
        description="Samples that cannot be used which a rank does without; the next one takes the place of each.",
    )


class Kept(Generic[T]):
    """What was last used, as much as fits into a number of bytes; any thread may ask."""

    def __init__(self, most: int):
        self._most, self._taken = most, 0
        self._values: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> T | None:
        """The value of a key; None where there is none, or none any more."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: Hashable, value: T, size: int) -> None:
        """Keep a value of so many bytes."""
        with self._lock:
            _, before = self._values.pop(key, (None, 0))
            self._values[key] = value, size
            self._taken += size - before
            while self._taken > self._most:
                _, (_, freed) = self._values.popitem(last=False)
                self._taken -= freed


class Loader(Generic[T]):
    """Samples by number.

    Args:
        load: makes a sample; raises `SampleError` where it cannot be used.
        instead: the number of the sample that takes the place of an unusable one.

    Attributes:
        waited: seconds that `take` has waited for samples.
        unreadable: numbers of the samples that could not be used.
    """

    def __init__(
        self,
        load: Callable[[int], T],
        instead: Callable[[int], int],
        settings: LoadingSettings,
    ):
        self._load, self._instead, self._settings = load, instead, settings
        self._pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="load")
        self._coming: dict[int, Future[T]] = {}
        self.waited = 0.0
        self.unreadable: set[int] = set()

    def expect(self, numbers: Iterable[int]) -> None:
        """Begin to load what the next `take` will ask for; it is not wrong to be wrong about that."""
        for number in numbers:
            if number not in self._coming:
                self._coming[number] = self._pool.submit(self._load, number)

    def take(self, numbers: Sequence[int]) -> list[T]:
        """The samples of these numbers, in order; what was expected beside them is forgotten.

        Raises:
            SampleError: more samples cannot be used than the settings do without.
            OSError: the storage failed for good.
        """
        began = time.perf_counter()
        self.expect(numbers)
        found: dict[int, T] = {}
        for number in numbers:
            if number not in found:
                found[number] = self._taken(number)
        for future in self._coming.values():
            future.cancel()
        self._coming.clear()
        self.waited += time.perf_counter() - began
        return [found[number] for number in numbers]

    def _taken(self, number: int) -> T:
        """A sample; where it cannot be used, the first one after it that can."""
        for _ in range(self._settings.max_unreadable + 1):
            try:
                return self._coming.pop(number).result() if number in self._coming else self._load(number)
            except SampleError as error:
                self._count(number, error)
                number = self._instead(number)
        raise SampleError(f"no sample of its kind can be used in its place, as the log says: number {number}")

    def _count(self, number: int, error: SampleError) -> None:
        if number in self.unreadable:
            return
        self.unreadable.add(number)
        if len(self.unreadable) > self._settings.max_unreadable:
            raise SampleError(
                f"{error} (samples that cannot be used: {len(self.unreadable)}; loading.max_unreadable, "
                f"{self._settings.max_unreadable}, is how many a rank does without)"
            ) from error
        log.warning("left out, %d of %d at most: %s", len(self.unreadable), self._settings.max_unreadable, error)
