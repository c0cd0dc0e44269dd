"""The watchdog: processes that really stand still are ended and say where they stood, others are left alone."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from components.training.watchdog import EXIT_STALLED, Watchdog


def run(root: Path, way: str, folder: Path, seconds: float) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "tests.training.stalls", way, str(folder), str(seconds)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)


def test_a_process_that_stands_still_is_ended_with_its_stacks(root: Path, tmp_path: Path) -> None:
    done = run(root, "lock", tmp_path / "new", 1.0)
    assert done.returncode == EXIT_STALLED, done.stderr
    (file,) = (tmp_path / "new").glob("stalled-*.txt")
    for text in (file.read_text(), done.stderr):
        assert "the test made no progress for 1 seconds since step 2" in text
        assert "wait_for_a_lock" in text, "the thread that hangs"
        assert "in _watch" in text, "every thread, not only the main one"
    assert "finished" not in done.stdout


@pytest.mark.slow
def test_a_process_that_gets_on_is_left_alone(root: Path, tmp_path: Path) -> None:
    """In all it takes twice as long as the watchdog waits."""
    done = run(root, "steady", tmp_path, 2.0)
    assert (done.returncode, done.stdout) == (0, "finished\n"), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_it_needs_neither_the_interpreter_nor_the_disk(root: Path, tmp_path: Path) -> None:
    """An extension that holds the interpreter lets no Python thread run; the folder cannot be made either."""
    (tmp_path / "file").touch()
    held = run(root, "regex", tmp_path, 0.5)
    assert held.returncode == 1 and "Timeout" in held.stderr and "stalls.py" in held.stderr
    no_disk = run(root, "lock", tmp_path / "file" / "folder", 0.5)
    assert no_disk.returncode == EXIT_STALLED and "wait_for_a_lock" in no_disk.stderr


@pytest.mark.slow
def test_it_ends_the_process_though_its_report_hangs_too(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(root))
    program = (
        "import sys, components.training.watchdog as w; w._SECONDS_TO_REPORT = 0.5; "
        f"sys.argv = ['', 'report', {str(tmp_path)!r}, '2']; from tests.training.stalls import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == EXIT_STALLED
    assert "wait_for_a_lock" in done.stderr and list(tmp_path.glob("stalled-*.txt"))


def test_zero_seconds_watch_nothing(tmp_path: Path) -> None:
    before = threading.active_count()
    with Watchdog("nothing", 0, tmp_path) as watchdog:
        watchdog.progress("somewhere")
        assert threading.active_count() == before


def test_leaving_disarms_it(tmp_path: Path) -> None:
    """Were it not disarmed, it would end this very process while the event is waited for."""
    with pytest.raises(KeyboardInterrupt), Watchdog("short", 0.2, tmp_path):
        raise KeyboardInterrupt
    threading.Event().wait(0.6)
    assert list(tmp_path.iterdir()) == []
    assert "watchdog of short" not in {thread.name for thread in threading.enumerate()}
