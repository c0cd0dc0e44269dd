"""The service behind HTTP and MLflow: formats, limits, one picture at a time, a bounded queue."""

import io
import struct
import threading
import time
import zlib

import pytest
from PIL import Image

from components.serving.limits import ServingLimits
from components.serving.service import PhotoService, Reason, Refused
from tests.serving.stubs import VERDICT, Brightener, level, picture


def refusal(service: PhotoService, content: bytes, **options: float) -> Refused:
    with pytest.raises(Refused) as caught:
        service.enhance(content, **options)
    return caught.value


@pytest.mark.parametrize(
    ("file_format", "expected"), [("PNG", "PNG"), ("JPEG", "JPEG"), ("WEBP", "WEBP"), ("BMP", "PNG")]
)
def test_answers_in_kind(file_format: str, expected: str) -> None:
    answer = PhotoService(Brightener()).enhance(picture(file_format), seed=3, strength=2.0)
    image = Image.open(io.BytesIO(answer.photo))
    assert (image.format, image.size) == (expected, (9, 6))
    assert level(answer.photo) == pytest.approx(100 + 51, abs=2)
    assert answer.text == "seed 3"
    assert VERDICT.model_validate_json(answer.verdict) == VERDICT


def test_the_models_own_strength_holds_where_none_is_named() -> None:
    service = PhotoService(Brightener())
    assert service.strength == 1.25
    assert level(service.enhance(picture()).photo) == pytest.approx(100 + 32, abs=1)


def test_a_verdict_that_does_not_parse_is_null() -> None:
    assert PhotoService(Brightener()).enhance(picture()).verdict == "null"


def test_only_judging_edits_nothing() -> None:
    judged = PhotoService(Brightener()).critique(picture())
    assert (judged.text, judged.verdict) == ("9 x 6", VERDICT)


@pytest.mark.parametrize(
    "content",
    [b"", b"not a picture", picture("JPEG")[:60], picture("PNG")[:45]],
    ids=["empty", "text", "half a JPEG", "half a PNG"],
)
def test_what_is_no_picture_is_refused(content: bytes) -> None:
    error = refusal(PhotoService(Brightener()), content)
    assert error.reason is Reason.INVALID
    assert str(error).startswith("photo: ")


def test_too_many_bytes_are_refused() -> None:
    error = refusal(PhotoService(Brightener(), ServingLimits(max_bytes=50)), picture())
    assert (error.reason, "at most 50 bytes" in str(error)) == (Reason.TOO_LARGE, True)


def lying_png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be huge."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = b""
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")):
        chunks += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("side", [8000, 100_000, 2**31 - 1])
def test_pixels_are_counted_before_they_are_decoded(side: int) -> None:
    enhancer = Brightener()
    error = refusal(PhotoService(enhancer, ServingLimits(max_pixels=1_000_000)), lying_png(side, side))
    assert error.reason in {Reason.TOO_LARGE, Reason.INVALID}
    assert enhancer.calls == 0


@pytest.mark.parametrize("options", [{"strength": 2.1}, {"strength": -1.0}, {"strength": float("nan")}, {"seed": -1}])
def test_parameters_out_of_range_are_refused(options: dict[str, float]) -> None:
    error = refusal(PhotoService(Brightener()), picture(), **options)
    assert error.reason is Reason.INVALID
    assert str(error).startswith(next(iter(options)))


def test_one_picture_at_a_time_and_no_more_wait_than_may() -> None:
    enhancer = Brightener(seconds=0.2)
    service = PhotoService(enhancer, ServingLimits(waiting=2))
    outcomes: list[str] = []

    def request() -> None:
        try:
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


def test_who_waits_past_the_deadline_is_given_up() -> None:
    enhancer = Brightener(seconds=0.5)
    service = PhotoService(enhancer)
    first = threading.Thread(target=service.enhance, args=(picture(),))
    first.start()
    while enhancer.calls == 0:
        time.sleep(0.005)
    assert refusal(service, picture(), deadline=time.monotonic() + 0.05).reason is Reason.TIMED_OUT
    first.join()
    assert enhancer.calls == 1


def test_a_failure_frees_its_place() -> None:
    class Broken(Brightener):
        def enhance(self, *_: object, **__: object) -> None:
            raise RuntimeError("out of order")

    service = PhotoService(Broken(), ServingLimits(waiting=0))
    for _ in range(3):
        with pytest.raises(RuntimeError, match="out of order"):
            service.enhance(picture())
