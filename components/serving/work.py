"""One request on its way through the server: who may come in, how long it may take, and whether anybody still waits."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum


class Reason(Enum):
    """Why a request got no picture."""

    INVALID = "invalid"
    TOO_LARGE = "too large"
    BUSY = "busy"
    TIMED_OUT = "timed out"
    """It waited too long for its turn."""
    TOO_SLOW = "too slow"
    """It had its turn and was not done in time."""


class Refused(Exception):  # noqa: N818 (reads as a sentence where it is caught)
    """A request that is turned away; the message says what was expected, what was found and what to do."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Abandoned(Exception):  # noqa: N818
    """Nobody waits for the result any more."""


class Admission:
    """The one queue: how many requests are inside at a time, at work or waiting.

    Args:
        places: how many may be.
    """

    def __init__(self, places: int):
        self.places, self._inside = places, 0
        self._lock = threading.Lock()

    @property
    def inside(self) -> int:
        """Requests that are inside."""
        return self._inside

    def check(self) -> None:
        """Go on only where a place is free, for now.

        Raises:
            Refused: all are taken.
        """
        if self._inside >= self.places:
            raise Refused(Reason.BUSY, f"{self.places - 1} requests are waiting already: try again in a few seconds")

    def enter(self) -> None:
        """Take a place; `leave` gives it back. Raises: as `check`."""
        with self._lock:
            self.check()
            self._inside += 1

    def leave(self) -> None:
        """Give a place back."""
        with self._lock:
            self._inside -= 1

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """While this is held, a place is taken. Raises: as `enter`."""
        self.enter()
        try:
            yield
        finally:
            self.leave()


class Work:
    """The time that one request may take, and the way to stop it.

    Args:
        seconds: from now until it must be done.
    """

    def __init__(self, seconds: float):
        self.seconds, self._deadline = seconds, time.monotonic() + seconds
        self._lock = threading.Lock()
        self._stop: Callable[[], None] | None = None
        self._is_abandoned = False
        self.has_begun = False
        """Whether it is its turn."""

    @property
    def left(self) -> float:
        """Seconds that are left, 0 where none are."""
        return max(0.0, self._deadline - time.monotonic())

    def check(self) -> None:
        """Go on only where there is time left and somebody waits.

        Raises:
            Abandoned: nobody does.
            Refused: there is none.
        """
        if self._is_abandoned:
            raise Abandoned
        if not self.left:
            raise self.late()

    def late(self) -> Refused:
        """What is told where the time is over."""
        if self.has_begun:
            return Refused(Reason.TOO_SLOW, f"not done in {self.seconds:g} s: send a smaller picture")
        return Refused(Reason.TIMED_OUT, "the request waited too long for its turn: try again later")

    def abandon(self) -> None:
        """Stop what is being done, at once where a process does it, else as soon as it asks."""
        with self._lock:
            self._is_abandoned = True
            if self._stop is not None:
                self._stop()

    @contextmanager
    def stoppable(self, stop: Callable[[], None]) -> Iterator[None]:
        """While this is held, `abandon` calls ``stop``.

        Raises:
            Abandoned: it was called before.
        """
        with self._lock:
            if self._is_abandoned:
                raise Abandoned
            self._stop = stop
        try:
            yield
        finally:
            with self._lock:
                self._stop = None

    @contextmanager
    def turn(self, lock: threading.Semaphore) -> Iterator[None]:
        """Hold ``lock`` as soon as it is free.

        Raises:
            Refused: the time was over before; Abandoned: nobody waits any more.
        """
        self.has_begun = False
        while not lock.acquire(timeout=min(self.left, _LOOK_SECONDS)):
            self.check()
        try:
            self.check()
            self.has_begun = True
            yield
        finally:
            lock.release()


_LOOK_SECONDS = 0.5
"""How often what waits for its turn looks whether anybody still waits for it."""
