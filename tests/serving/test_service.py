"""The service behind HTTP and MLflow: formats, limits, one picture at a time, a bounded queue."""

import io
import struct
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from components.imaging.originals import read_original
from components.inference.workflow import EnhanceOptions, enhance_file
from components.serving.service import PhotoService
from components.serving.work import Reason, Refused, Work
from tests.raw_files import write_dng
from tests.serving.stubs import VERDICT, Brightener, level, picture

Served = Callable[..., PhotoService]


def refusal(service: PhotoService, content: bytes, **options: float) -> Refused:
    with pytest.raises(Refused) as caught:
        service.enhance(content, **options)
    return caught.value


@pytest.mark.parametrize(
    ("file_format", "expected"), [("PNG", "PNG"), ("JPEG", "JPEG"), ("WEBP", "WEBP"), ("BMP", "PNG")]
)
def test_answers_in_kind(served: Served, file_format: str, expected: str) -> None:
    answer = served(Brightener()).enhance(picture(file_format), seed=3, strength=2.0)
    image = Image.open(io.BytesIO(answer.photo))
    assert (image.format, image.size) == (expected, (9, 6))
    assert level(answer.photo) == pytest.approx(100 + 51, abs=2)
    assert answer.text == "seed 3"
    assert VERDICT.model_validate_json(answer.verdict) == VERDICT


def test_the_models_own_strength_holds_where_none_is_named(served: Served) -> None:
    service = served(Brightener())
    assert service.strength == 1.25
    assert level(service.enhance(picture()).photo) == pytest.approx(100 + 32, abs=1)


def test_a_verdict_that_does_not_parse_is_null(served: Served) -> None:
    assert served(Brightener()).enhance(picture()).verdict == "null"


def test_only_judging_edits_nothing(served: Served) -> None:
    judged = served(Brightener()).critique(picture())
    assert (judged.text, judged.verdict) == ("9 x 6", VERDICT)


@pytest.mark.parametrize(
    "content",
    [b"", b"not a picture", picture("JPEG")[:60], picture("PNG")[:45]],
    ids=["empty", "text", "half a JPEG", "half a PNG"],
)
def test_what_is_no_picture_is_refused(served: Served, content: bytes) -> None:
    error = refusal(served(Brightener()), content)
    assert error.reason is Reason.INVALID
    assert str(error).startswith("photo: ")


def _wide(path: Path) -> None:
    samples = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    tifffile.imwrite(path, samples, photometric="rgb", iccprofile=imagecodecs.cms_profile("adobergb"))


def _raw(path: Path) -> None:
    write_dng(path, 6)


def _raw_behind_a_preview(path: Path) -> None:
    """As most raw formats are: TIFF with a small picture first, and the sensor's samples in a directory within it."""
    write_dng(path, 1)
    content = bytearray(path.read_bytes())
    preview = np.full((4, 6, 3), 99, np.uint8).tobytes()
    where = len(content)
    content += preview
    (sensor,) = struct.unpack_from("<I", content, 4)
    tags = {254: 1, 256: 6, 257: 4, 258: 8, 259: 1, 262: 2, 273: where, 277: 3, 278: 4, 279: len(preview), 330: sensor}
    count = struct.unpack_from("<H", content, sensor)[0]
    entries = [bytes(content[sensor + 2 + 12 * index :][:12]) for index in range(count)]
    first = [entry for entry in entries if struct.unpack_from("<H", entry)[0] in (271, 272, *range(50706, 51000))]
    first += [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()]
    struct.pack_into("<I", content, 4, len(content))
    content += struct.pack("<H", len(first)) + b"".join(sorted(first, key=lambda entry: struct.unpack("<H", entry[:2])))
    path.write_bytes(bytes(content) + bytes(4))


@pytest.mark.parametrize(
    ("name", "write"),
    [("a.tif", _wide), ("a.dng", _raw), ("b.dng", _raw_behind_a_preview)],
    ids=["wide", "raw", "preview"],
)
def test_a_server_reads_and_writes_what_the_command_line_does(
    served: Served, tmp_path: Path, name: str, write: Callable[[Path], None]
) -> None:
    write(tmp_path / name)
    enhancer = Brightener()
    for strength in (0.0, 1.0):
        answer = served(enhancer).enhance((tmp_path / name).read_bytes(), strength=strength)
        options = EnhanceOptions(strength=strength)
        made = enhance_file(enhancer, tmp_path / name, f"out{answer.suffix}", options)
        assert answer.photo == made.files[f"out{answer.suffix}"]
    unchanged = served(enhancer).enhance((tmp_path / name).read_bytes(), strength=0.0).photo
    (tmp_path / f"out{answer.suffix}").write_bytes(unchanged)
    assert np.array_equal(
        read_original(tmp_path / f"out{answer.suffix}").samples, read_original(tmp_path / name).samples
    )
    assert read_original(tmp_path / name).samples.shape[0] >= 40  # no preview


def test_too_many_bytes_are_refused(served: Served) -> None:
    error = refusal(served(Brightener(), max_bytes=50), picture())
    assert (error.reason, "at most 50 bytes" in str(error)) == (Reason.TOO_LARGE, True)


def lying_png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be huge."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = b""
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")):
        chunks += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("side", [8000, 100_000, 2**31 - 1])
def test_pixels_are_counted_before_they_are_decoded(served: Served, side: int) -> None:
    enhancer = Brightener()
    error = refusal(served(enhancer, max_pixels=1_000_000), lying_png(side, side))
    assert error.reason in {Reason.TOO_LARGE, Reason.INVALID}
    assert enhancer.calls == 0


@pytest.mark.parametrize("options", [{"strength": 2.1}, {"strength": -1.0}, {"strength": float("nan")}, {"seed": -1}])
def test_parameters_out_of_range_are_refused(served: Served, options: dict[str, float]) -> None:
    error = refusal(served(Brightener()), picture(), **options)
    assert error.reason is Reason.INVALID
    assert str(error).startswith(next(iter(options)))


def test_one_picture_at_a_time_and_no_more_wait_than_may(served: Served) -> None:
    enhancer = Brightener(seconds=0.2)
    service = served(enhancer, waiting=2)
    outcomes: list[str] = []

    def request() -> None:
        try:
            with service.admission.admitted():
                service.enhance(picture())
            outcomes.append("done")
        except Refused as refused:
            outcomes.append(refused.reason.value)

    threads = [threading.Thread(target=request) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert enhancer.most == 1
    assert outcomes.count("done") == enhancer.calls >= 3
    assert outcomes.count("busy") == 8 - enhancer.calls > 0
    service.enhance(picture())  # the places are free again


def test_who_waits_past_the_deadline_is_given_up(served: Served) -> None:
    enhancer = Brightener(seconds=5)
    service = served(enhancer)
    first = threading.Thread(target=service.enhance, args=(picture(),))
    first.start()
    while enhancer.calls == 0:
        time.sleep(0.005)
    assert refusal(service, picture(), work=Work(2)).reason is Reason.TIMED_OUT
    first.join()
    assert enhancer.calls == 1


def test_a_failure_frees_its_place(served: Served) -> None:
    class Broken(Brightener):
        def plan(self, *_: object) -> None:
            raise RuntimeError("out of order")

    service = served(Broken(), waiting=0)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="out of order"):
            service.enhance(picture())
