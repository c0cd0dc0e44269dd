"""Ends a process that stalls, after writing down where each of its threads is.

A collective whose peer died, a file server that is gone or a deadlock never returns, and would hold its GPUs until
somebody looks. The loop says whenever it gets on; a thread watches that it does.
"""

import faulthandler
import logging
import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType

log = logging.getLogger(__name__)

EXIT_STALLED = os.EX_TEMPFAIL
"""Exit status (75) of a process that was ended because it stalled: started again, it resumes from its last
checkpoint."""
_STDERR = 2  # the descriptor, whatever sys.stderr is at the moment
_SECONDS_TO_REPORT = 30.0


class Watchdog:
    """While its context lasts, :meth:`progress` must be called every `seconds`, or the process ends.

    It ends with every thread's Python stack on the standard error and in a file, and with status `EXIT_STALLED`. It
    ends hard: no `finally` runs, because what the main thread waits for may never come. Where a C extension holds the
    interpreter, so that no Python thread runs at all, faulthandler's own thread ends the process after twice as long,
    with the stacks on the standard error and status 1. One watchdog is armed at a time.

    Args:
        name: of what is watched, for the report.
        seconds: that may pass without progress; 0 watches nothing.
        folder: where `stalled-<host>-<process>.txt` goes.
    """

    def __init__(self, name: str, seconds: float, folder: Path):
        self.name, self.seconds = name, seconds
        self.file = Path(folder) / f"stalled-{socket.gethostname()}-{os.getpid()}.txt"
        self._last = (time.monotonic(), "its start")
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Watchdog":
        self.progress("its start")
        if self.seconds:
            self._thread = threading.Thread(target=self._watch, name=f"watchdog of {self.name}", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    def progress(self, where: str) -> None:
        """Something was achieved; `where` is what begins now, and is named if it never ends."""
        self._last = (time.monotonic(), where)
        if self.seconds:
            faulthandler.dump_traceback_later(2 * self.seconds, exit=True, file=_STDERR)

    def _watch(self) -> None:
        while not self._done.wait(max(0.0, self._last[0] + self.seconds - time.monotonic())):
            since, where = self._last
            if time.monotonic() - since >= self.seconds:
                # Reporting may hang on the very thing that hangs: a lock, a pipe, a file server.
                reporter = threading.Thread(target=self._report, args=(where,), name="watchdog's report", daemon=True)
                reporter.start()
                reporter.join(_SECONDS_TO_REPORT)
                os._exit(EXIT_STALLED)

    def _report(self, where: str) -> None:
        message = (
            f"{self.name} made no progress for {self.seconds:g} seconds since {where}; the process {os.getpid()} ends "
            f"with status {EXIT_STALLED}. Started again, it resumes from its last checkpoint."
        )
        os.write(_STDERR, f"\n{message}\n".encode())
        faulthandler.dump_traceback(file=_STDERR, all_threads=True)
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("w", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {message}\n\n")
                file.flush()
                faulthandler.dump_traceback(file=file, all_threads=True)
            message += f" The stacks of its threads: {self.file}"
        except OSError as error:
            message += f" The stacks of its threads are on the standard error alone: {error}"
        log.critical("%s", message)
