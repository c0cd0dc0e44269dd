"""Photos opened in processes of their own, which are killed when they take too long or nobody waits for them.

The server's side of `components.serving.isolated`: it starts the process that makes copies of itself, asks it for one
copy a photo, and tells by how a copy ended what was wrong with the file.
"""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor

from components.inference.transfer import FieldEdit
from components.serving.isolated import FORK, KILL, NUMBER, READY, Ended, planes, receive, send
from components.serving.limits import ServingLimits
from components.serving.work import Reason, Refused, Work

_MEBIBYTE = 2**20
_ROOM, _ROOM_A_PIXEL = 512 * _MEBIBYTE, 48
"""Address space that a photo may take beyond what its process has: of its pixels, a 10-bit HEIC takes 42 bytes each."""
_START_SECONDS = 300.0
_END_SECONDS = 5.0
_WORDS = {
    signal.SIGXCPU: "it takes more than {seconds:g} s of processor time to read or write: save it anew, or smaller",
    signal.SIGKILL: "the system ended the process that worked on it, most likely for memory: send it scaled down",
}


class DecodeProcesses:
    """The processes in which photos are open; `close` ends them.

    Args:
        readers: how many photos may be open at a time.

    Attributes:
        ends: how many ended otherwise than well, by why: the name of a signal, or "memory".
    """

    def __init__(self, readers: int):
        self._free = threading.BoundedSemaphore(readers)
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closed = self._is_loaded = False
        self.ends: Counter[str] = Counter()

    @property
    def is_ready(self) -> bool:
        """Whether photos are opened at once: the process that makes copies is there and has loaded what it needs."""
        with self._lock:
            if self._control is not None and not self._is_loaded:
                with suppress(OSError):  # nothing told yet
                    self._is_loaded = self._control.recv(64, socket.MSG_DONTWAIT) == READY
            return self._is_loaded

    def start(self) -> None:
        """Begin to start the process that makes copies, which takes seconds; `opened` waits for it."""
        with self._lock:
            self._started()

    def close(self) -> None:
        """End all processes, and what waits for them."""
        with self._lock:
            self._is_closed = True
            self._end()

    @contextmanager
    def opened(self, name: str, content: bytes, limits: ServingLimits, work: Work) -> Iterator["IsolatedPhoto"]:
        """Open a photo in a process of its own, which ends with the context.

        Args:
            name: of the file; its suffix, if any, tells camera raw from other TIFF files.
            limits: of pixels and processor time.
            work: until when it must be done.

        Raises:
            Refused: its bytes are no photo within the limits, or there is no time left.
            components.serving.work.Abandoned: nobody waits any more.
        """
        with work.turn(self._free):
            ours, theirs = socket.socketpair()
            told, report = os.pipe()
            try:
                with ours:
                    with theirs:
                        self._ask(FORK, theirs.fileno(), report)
                    os.close(report)
                    report = -1
                    pid = _number(told, _START_SECONDS)
                    photo = IsolatedPhoto(self, ours, told, work, limits)
                    try:
                        with work.stoppable(lambda: self._kill(pid)):
                            photo.open(name, content)
                            yield photo
                    finally:
                        self._kill(pid)
            finally:
                os.close(told)
                if report >= 0:
                    os.close(report)

    def _ask(self, message: bytes, *fds: int) -> None:
        with self._lock:
            for attempt in (1, 2):
                try:
                    socket.send_fds(self._started(), [message], fds)
                    return
                except OSError:  # it is gone, and started again
                    self._end()
                    if attempt == 2:
                        raise

    def _kill(self, pid: int) -> None:
        with self._lock:
            if self._control is not None:
                with suppress(OSError):  # it is gone, and its copies with it
                    self._control.send(KILL + str(pid).encode())

    def _started(self) -> socket.socket:
        if self._is_closed:
            raise Refused(Reason.BUSY, "the server is ending: try again in a few seconds")
        if self._control is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "components.serving.isolated", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                )
            self._control = ours
        return self._control

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control, self._is_loaded = None, False
        if self._process is not None:
            try:
                self._process.wait(timeout=_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


class IsolatedPhoto:
    """A photo that is open in a process of its own, as far as `components.inference.workflow.OpenPhoto` goes."""

    width: int
    height: int
    format: str
    white_kelvin: float | None

    def __init__(
        self, processes: DecodeProcesses, channel: socket.socket, told: int, work: Work, limits: ServingLimits
    ):
        self._processes, self._channel, self._told, self._work, self._limits = processes, channel, told, work, limits

    def open(self, name: str, content: bytes) -> None:
        """Have the file read. Raises: as `DecodeProcesses.opened`."""
        message = {
            "name": name,
            "max_pixels": self._limits.max_pixels,
            "room": self._room,
            "seconds": self._limits.photo_seconds,
            "threads": torch.get_num_threads(),
        }
        found, _ = self._asked(message, content)
        self.width, self.height = int(found["width"]), int(found["height"])
        self.format, self.white_kelvin = str(found["format"]), found["white_kelvin"]

    def reduced(self, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """The photo reduced to each of some sizes (height, width), float32 (3, h, w) sRGB in [0, 1]."""
        answer, blocks = self._asked({"reduce": [list(size) for size in sizes]})
        if [tuple(shape) for shape in answer["shapes"]] != [(3, *size) for size in sizes] or len(blocks) != len(sizes):
            raise self._ended()
        return [planes((3, *size), block) for size, block in zip(sizes, blocks, strict=True)]

    def finished(self, edit: FieldEdit, target: str) -> bytes:
        """The edited photo as a file in the format of the suffix of ``target``; the last that can be asked for."""
        message = {"target": target, "height": self.height, "shape": list(edit.field.shape)}
        _, (content,) = self._asked(message, edit.field.float().contiguous().cpu().numpy().tobytes())
        return bytes(content)

    @property
    def _room(self) -> int:
        return _ROOM + _ROOM_A_PIXEL * self._limits.max_pixels

    def _asked(self, message: dict[str, Any], *blocks: bytes) -> tuple[dict[str, Any], list[bytearray]]:
        self._work.check()
        self._channel.settimeout(max(self._work.left, 1e-3))
        try:
            with suppress(Ended):  # it may have said why before it ended
                send(self._channel, message, *blocks)
            answer, found = receive(self._channel, self._room)
        except TimeoutError:
            raise self._work.late() from None
        except Ended:
            raise self._ended() from None
        if "refused" in answer:
            raise Refused(Reason.INVALID, f"photo: {answer['refused']}")
        if "large" in answer:
            width, height = answer["large"]
            raise Refused(
                Reason.TOO_LARGE,
                f"photo: expected at most {self._limits.max_pixels} pixels, found {width} x {height}: "
                f"send it scaled down",
            )
        if "memory" in answer:
            self._processes.ends["memory"] += 1
            room = self._room // _MEBIBYTE
            raise Refused(Reason.INVALID, f"photo: it takes more than {room} MiB to read or write: send it scaled down")
        return answer, found

    def _ended(self) -> Exception:
        """What to raise where the process ended without an answer."""
        self._work.check()
        number = _number(self._told, _END_SECONDS)
        if not number:
            return RuntimeError("a photo could not be worked on; the log of its process says why")
        name = signal.Signals(number).name
        self._processes.ends[name] += 1
        words = _WORDS.get(signal.Signals(number), "its decoder crashed ({name}): save it anew with another program")
        return Refused(Reason.INVALID, f"photo: {words.format(seconds=self._limits.photo_seconds, name=name)}")


def _number(told: int, seconds: float) -> int:
    """What the process that makes copies tells next of one: its process number, and then how it ended.

    Raises:
        RuntimeError: it does not, in that many seconds.
    """
    ready, _, _ = select.select([told], [], [], seconds)
    content = os.read(told, NUMBER.size) if ready else b""
    if len(content) < NUMBER.size:
        raise RuntimeError("the process that opens photos does not answer; its log says why")
    return int(NUMBER.unpack(content)[0])
