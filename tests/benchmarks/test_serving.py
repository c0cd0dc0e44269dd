"""The load generator on a real server, and the figures made of what it met."""

import collections
import shutil
from collections.abc import Callable

import pytest

from benchmarks.serving import Load, apply_load, apply_wrk, rows_of
from components.serving.service import PhotoService
from tests.serving.stubs import Brightener, picture


def test_the_load_counts_what_the_server_did(serve: Callable[..., str], served: Callable[..., PhotoService]) -> None:
    enhancer = Brightener(seconds=0.01)
    address = serve(served(enhancer, waiting=3))
    within = apply_load(address, picture("JPEG"), 20, 4, "within")
    assert within.statuses == {200: 20} and len(within.latencies) == 20
    beyond = apply_load(address, picture("JPEG"), 60, 20, "beyond")
    assert set(beyond.statuses) == {200, 429} and beyond.statuses.total() == 60
    assert enhancer.calls == 20 + beyond.statuses[200]
    assert all(row.ok for row in rows_of(within, beyond, 100 * 2**20, 101 * 2**20))


@pytest.mark.skipif(shutil.which("wrk") is None, reason="Debian's package wrk is not installed")
def test_wrk_counts_what_the_server_did(serve: Callable[..., str], served: Callable[..., PhotoService]) -> None:
    enhancer = Brightener(seconds=0.01)
    address = serve(served(enhancer, waiting=3))
    load = apply_wrk(address, picture("JPEG"), 1, 20)
    assert load is not None and set(load.statuses) == {0, 200, 429}
    assert load.statuses[0] == 0 and 0 < load.statuses[200] <= enhancer.calls
    assert load.statuses[429] > load.statuses[200] and load.seconds == pytest.approx(1, abs=0.5)


def test_failures_and_growth_miss_their_targets() -> None:
    within = Load(collections.Counter({200: 9, 500: 1}), 2.0, [0.1] * 9)
    beyond = Load(collections.Counter({200: 5, 429: 4, 0: 1}), 1.0, [0.1] * 5)
    errors, odd, speed, latency, memory = rows_of(within, beyond, 100 * 2**20, 110 * 2**20)
    assert (errors.value, errors.ok) == (1, False)
    assert (odd.value, odd.ok) == (1, False)
    by_wrk = Load(collections.Counter({0: 0, 200: 50, 429: 400, 503: 2}), 10.0, [])
    row = rows_of(within, beyond, 100 * 2**20, 110 * 2**20, by_wrk)[2]
    assert (
        (row.value, row.ok) == (2, False) and "45 requests per second by wrk" in row.name and "(50 and 400)" in row.name
    )
    assert (speed.value, latency.value) == (4.5, 0.1)
    assert (memory.value, memory.ratio, memory.ok) == (10, 0.1, False)
