"""The load generator on a real server, and the figures made of what it met."""

import collections
from collections.abc import Callable

from fastapi import FastAPI

from components.serving.app import create_app
from components.serving.benchmark import Load, apply_load, rows_of
from components.serving.service import PhotoService, ServingLimits
from tests.serving.stubs import Brightener, picture


def test_the_load_counts_what_the_server_did(serve: Callable[[FastAPI], str]) -> None:
    crafter = Brightener(seconds=0.01)
    address = serve(create_app(PhotoService(crafter, ServingLimits(waiting=3))))
    within = apply_load(address, picture("JPEG"), 20, 4, "within")
    assert within.statuses == {200: 20} and len(within.latencies) == 20
    beyond = apply_load(address, picture("JPEG"), 60, 20, "beyond")
    assert set(beyond.statuses) == {200, 429} and beyond.statuses.total() == 60
    assert crafter.calls == 20 + beyond.statuses[200]
    assert all(row.ok for row in rows_of(within, beyond, 100 * 2**20, 101 * 2**20))


def test_failures_and_growth_miss_their_targets() -> None:
    within = Load(collections.Counter({200: 9, 500: 1}), 2.0, [0.1] * 9)
    beyond = Load(collections.Counter({200: 5, 429: 4, 0: 1}), 1.0, [0.1] * 5)
    errors, odd, speed, latency, memory = rows_of(within, beyond, 100 * 2**20, 110 * 2**20)
    assert (errors.value, errors.ok) == (1, False)
    assert (odd.value, odd.ok) == (1, False)
    assert (speed.value, latency.value) == (4.5, 0.1)
    assert (memory.value, memory.ratio, memory.ok) == (10, 0.1, False)
