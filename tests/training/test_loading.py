"""Loading ahead: what is expected comes from threads, waiting is counted, memory is bounded."""

import threading
import time

import pytest

from components.data.samples import SampleError
from components.training.loading import Kept, Loader, LoadingSettings


def test_what_is_expected_is_loaded_by_threads_before_it_is_asked_for() -> None:
    loaded, done = [], threading.Event()

    def load(number: int) -> int:
        loaded.append((number, threading.current_thread() is threading.main_thread()))
        if len(loaded) == 3:
            done.set()
        return number * 10

    loader = Loader(load, lambda number: number, LoadingSettings(workers=2))
    loader.expect([3, 1, 3, 2])
    assert done.wait(10)
    assert sorted(loaded) == [(1, False), (2, False), (3, False)]
    assert loader.take([3, 1, 3, 2]) == [30, 10, 30, 20]
    assert len(loaded) == 3


def test_waiting_is_counted_only_where_a_step_waits() -> None:
    loader = Loader(lambda number: time.sleep(0.1), lambda number: number, LoadingSettings(workers=1))
    loader.take([1, 2])
    assert 0.2 <= loader.waited < 0.5
    before = loader.waited
    loader.expect([3])
    time.sleep(0.2)
    loader.take([3])
    assert loader.waited - before < 0.05


def test_what_was_expected_in_vain_is_forgotten() -> None:
    loader = Loader(lambda number: number, lambda number: number, LoadingSettings())
    loader.expect([1, 2, 3])
    assert loader.take([4]) == [4]
    assert not loader._coming


def test_samples_are_left_out_as_far_as_is_allowed_and_then_named() -> None:
    def load(number: int) -> int:
        if number in (2, 3, 7):
            raise SampleError(f"number {number} is bad")
        return number

    loader = Loader(load, lambda number: (number + 1) % 10, LoadingSettings(max_unreadable=2))
    assert loader.take([1, 2, 3]) == [1, 4, 4]
    assert loader.unreadable == {2, 3}
    with pytest.raises(SampleError, match=r"number 7 is bad .*: 3; loading\.max_unreadable, 2,"):
        loader.take([7])


def test_a_bucket_of_bad_samples_ends_and_storage_that_fails_is_no_bad_sample() -> None:
    def bad(number: int) -> int:
        raise SampleError(f"number {number} is bad")

    def gone(number: int) -> int:
        raise OSError("the bucket is gone")

    with pytest.raises(SampleError, match="no sample of its kind"):
        Loader(bad, lambda number: (number + 1) % 3, LoadingSettings(max_unreadable=9)).take([0])
    with pytest.raises(OSError, match="the bucket is gone"):
        Loader(gone, lambda number: number, LoadingSettings(max_unreadable=9)).take([0])


def test_what_was_used_last_is_kept_within_a_number_of_bytes() -> None:
    kept: Kept[str] = Kept(10)
    kept.put("a", "A", 4)
    kept.put("b", "B", 4)
    assert kept.get("a") == "A"
    kept.put("c", "C", 4)
    assert (kept.get("a"), kept.get("b"), kept.get("c")) == ("A", None, "C")
    kept.put("a", "A", 4)
    assert kept.get("c") == "C", "what is put again does not count twice"
    kept.put("d", "D", 11)
    assert kept.get("d") is None
