"""The process that reads and writes other people's pictures, so that none of them reaches the server's own memory.

    python -m components.serving.isolated FD

It loads what decoders and edits need, once, and then makes a copy of itself for each photo that is asked for on the
socket FD (`components.serving.processes`): a fork takes milliseconds, and holds nothing of the photo before. The copy
has limits of address space and processor time and dies of them, or of a decoder's fault, alone.

Messages are JSON, with blocks of bytes behind them; nothing is unpickled. The parent says first what is to be opened:

    {"name", "max_pixels", "room", "seconds", "threads"}, the file  ->  {"width", "height", "format", "white_kelvin"}
    {"reduce": [[height, width], ...]}                              ->  {"shapes"}, float32 pictures
    {"target", "height", "shape"}, float32 field                    ->  {}, the file

and is answered {"refused"} with a reason, {"large": [width, height]} or {"memory": true} where a file is not read.
"""

import contextlib
import importlib
import io
import json
import logging
import os
import resource
import select
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from components.imaging.originals import Original, encode_original, read_original
from components.imaging.photo import UnreadablePhoto, read_header
from components.imaging.source import MemoryFile
from components.inference.transfer import FieldEdit

FORK, KILL, READY = b"fork", b"kill", b"ready"
"""What the parent asks for, a copy for the socket that comes with it or the end of the copy whose number follows; and
what it is told when all is loaded."""
NUMBER = struct.Struct("!Q")
"""A length, a process number or a signal, as both sides tell them."""
_MOST_JSON = 2**20
_PAGE = resource.getpagesize()


class Ended(Exception):  # noqa: N818 (reads as a sentence where it is caught)
    """The other side is gone."""


def send(channel: socket.socket, message: dict[str, Any], *blocks: bytes | memoryview) -> None:
    """Send a message with blocks of bytes behind it.

    Raises:
        Ended: nobody reads it.
    """
    text = json.dumps({**message, "blocks": [len(block) for block in blocks]}).encode()
    try:
        channel.sendall(NUMBER.pack(len(text)) + text)
        for block in blocks:
            channel.sendall(block)
    except TimeoutError:
        raise
    except OSError as error:
        raise Ended from error


def receive(channel: socket.socket, most: int) -> tuple[dict[str, Any], list[bytearray]]:
    """The next message and its blocks, which have ``most`` bytes together at most.

    Raises:
        Ended: none comes any more, or one that is none.
        TimeoutError: none came in the time that the socket allows.
    """
    (length,) = NUMBER.unpack(_exactly(channel, NUMBER.size))
    if length > _MOST_JSON:
        raise Ended
    try:
        message = json.loads(_exactly(channel, length))
        sizes = [int(size) for size in message.pop("blocks")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Ended from error
    if min(sizes, default=0) < 0 or sum(sizes) > most:
        raise Ended
    return message, [_exactly(channel, size) for size in sizes]


def _exactly(channel: socket.socket, size: int) -> bytearray:
    content = bytearray(size)
    view, got = memoryview(content), 0
    while got < size:
        try:
            more = channel.recv_into(view[got:])
        except TimeoutError:
            raise
        except OSError as error:
            raise Ended from error
        if not more:
            raise Ended
        got += more
    return content


def planes(shape: Sequence[int], block: bytearray) -> torch.Tensor:
    """A float32 tensor out of a block.

    Raises:
        Ended: the block has another length.
    """
    values = np.frombuffer(block, np.float32)
    if min(shape, default=0) < 1 or values.size != int(np.prod(shape)):
        raise Ended
    return torch.from_numpy(values.reshape(tuple(shape)))


def _limit(room: int, seconds: float) -> None:
    """Allow ``room`` bytes beyond what is taken already, and ``seconds`` of processor time from now on."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE
    resource.setrlimit(resource.RLIMIT_AS, (taken + room, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _allow(seconds)
    with contextlib.suppress(OSError):  # where memory runs out all the same, let it be this process that goes
        Path("/proc/self/oom_score_adj").write_text("1000")


def _allow(seconds: float) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    until = int(usage.ru_utime + usage.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (until, resource.RLIM_INFINITY))


def work(channel: socket.socket) -> None:
    """Open the photo that is asked for and do with it what is asked for, until the parent ends it."""
    asked, (content,) = receive(channel, 2**40)
    torch.set_num_threads(asked["threads"])
    _limit(asked["room"], asked["seconds"])
    try:
        original = _opened(channel, asked, bytes(content))
        del content
        while original is not None:
            message, blocks = receive(channel, 2**30)
            if "reduce" in message:
                pictures = original.reduced([(height, width) for height, width in message["reduce"]])
                shapes = [list(picture.shape) for picture in pictures]
                send(channel, {"shapes": shapes}, *(picture.contiguous().numpy().tobytes() for picture in pictures))
                continue
            _allow(asked["seconds"])
            edit = FieldEdit(planes(message["shape"], blocks[0]), message["height"])
            original = original.edited(edit, in_place=True)
            send(channel, {}, encode_original(original, message["target"]))
    except UnreadablePhoto as error:
        send(channel, {"refused": error.reason})
    except MemoryError:
        send(channel, {"memory": True})
    except RuntimeError as error:
        if "alloc" not in str(error):  # torch's own words for it
            raise
        send(channel, {"memory": True})


def _opened(channel: socket.socket, asked: dict[str, Any], content: bytes) -> Original | None:
    source = MemoryFile(asked["name"], content)
    header = read_header(source, sys.maxsize)
    if header.width * header.height > asked["max_pixels"]:
        send(channel, {"large": [header.width, header.height]})
        return None
    original = read_original(source, asked["max_pixels"])
    names = ("width", "height", "format", "white_kelvin")
    send(channel, {name: getattr(original, name) for name in names})
    return original


def warm() -> None:
    """Load every decoder and encoder, which they put off to their first picture."""
    importlib.import_module("rawpy")
    picture = Original(np.full((8, 8, 3), 90, np.uint8))
    for name in ("a.jpg", "a.png", "a.tif", "a.webp", "a.avif", "a.heic"):
        content = encode_original(picture, name)
        again = read_original(MemoryFile("photo", content))
        again.reduced([(2, 2)])
        replace(again.edited(FieldEdit(torch.zeros(12, 2, 2), 8)), format="PNG")
    for file_format in ("GIF", "BMP"):
        stream = io.BytesIO()
        Image.new("RGB", (8, 8)).save(stream, file_format)
        read_original(MemoryFile("photo", stream.getvalue()))


def main() -> None:
    """Make copies until the parent ends."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    for ignored in (signal.SIGINT, signal.SIGTERM):  # the server's business, with which this process ends
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    control = socket.socket(fileno=int(sys.argv[1]))
    torch.set_num_threads(1)  # a process with threads must not be copied
    warm()
    woken, waker = socket.socketpair()
    for end in (woken, waker):
        end.setblocking(False)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    copies: dict[int, int] = {}
    control.send(READY)
    try:
        _serve(control, woken, copies)
    finally:
        signal.set_wakeup_fd(-1)
        for pid in copies:
            os.kill(pid, signal.SIGKILL)
    os._exit(0)  # to take the libraries apart takes seconds


def _serve(control: socket.socket, woken: socket.socket, copies: dict[int, int]) -> None:
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            woken.recv(4096)
            _reap(copies)
        if control not in ready:
            continue
        try:
            message, fds, _, _ = socket.recv_fds(control, 64, 2)
        except ConnectionResetError:  # the parent ended with an answer unread
            return
        if not message:
            return
        if message.startswith(KILL):
            pid = int(message.removeprefix(KILL))
            if pid in copies:  # not reaped yet, so that the number is still its own
                os.kill(pid, signal.SIGKILL)
            continue
        channel, report = fds
        pid = os.fork()
        if pid == 0:
            control.close()
            _copy(channel)
        os.close(channel)
        copies[pid] = report
        with contextlib.suppress(OSError):  # the parent has closed it again
            os.write(report, NUMBER.pack(pid))


def _reap(copies: dict[int, int]) -> None:
    """Tell of each copy that has ended how it did: by which signal, or 0."""
    for pid in list(copies):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            report = copies.pop(pid)
            with contextlib.suppress(OSError):
                os.write(report, NUMBER.pack(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0))
            os.close(report)


def _copy(channel: int) -> None:
    """What the copy does; it never returns."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with socket.socket(fileno=channel) as connection:
            work(connection)
        status = 0
    except Ended:
        status = 0
    except BaseException:
        logging.getLogger(__name__).exception("a photo could not be worked on")
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
