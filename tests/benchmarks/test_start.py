"""The benchmark of starts: what a process took is measured, figures stand beside their targets, failures are told."""

import subprocess
import sys

import pytest

from benchmarks.start import Cost, main, measure, rows, run_once
from components.command_line import run


def test_rows_hold_figures_against_targets() -> None:
    torch, imports = Cost(1.0, 1.0, 5e8), Cost(2.0, 2.0, 6e8)
    good = rows(Cost(0.05, 0.05, 2e7), torch, imports, Cost(3.0, 4.0, 7e8), Cost(9.0, 9.0, 5e8))
    assert [row.ok for row in good] == [True] * 6
    assert [row.value for row in good] == [0.05, 3.0, 4.0, 700.0, 50.0, 9.0]
    assert [row.ratio for row in good] == [None, 3.0, 4.0, 1.4, None, None]
    bad = rows(Cost(0.5, 0.5, 2e7), torch, imports, Cost(4.0, 4.0, 9e8), Cost(11.0, 9.0, 5e8))
    assert [row.name for row in bad if not row.ok] == [good[index].name for index in (0, 1, 3, 5)]
    assert len(rows(torch, torch, imports, imports, None)) == 5


def test_a_process_is_measured_by_itself() -> None:
    held = bytearray(200_000_000)  # by this process, which the measured one has nothing of
    cost, text = run_once([sys.executable, "-c", "print('first'); print('last')"])
    assert text == "first\nlast"
    assert 1e6 < cost.peak_bytes < len(held)
    assert cost.seconds > 0 and cost.cpu_seconds > 0
    larger, _ = run_once([sys.executable, "-c", "bytearray(range(256)) * 400_000"])
    assert larger.peak_bytes - cost.peak_bytes == pytest.approx(256 * 400_000, rel=0.1)


def test_the_first_time_does_not_count(tmp_path) -> None:
    log = tmp_path / "log"
    measure([sys.executable, "-c", f"open({str(log)!r}, 'a').write('x')"], repeats=2)
    assert log.read_text() == "xxx"


def test_a_command_that_fails_is_told(tmp_path, capsys) -> None:
    with pytest.raises(subprocess.CalledProcessError, match="status 3"):
        run_once([sys.executable, "-c", "print('no disk'); raise SystemExit(3)"])
    assert "no disk" in capsys.readouterr().err


@pytest.mark.slow
def test_without_the_model_there_are_no_figures(tmp_path) -> None:
    missing = str(tmp_path / "nothing")
    assert run(main, ["--no-pipeline", "--repeats", "1", "--model", missing, "--out", str(tmp_path / "rows.json")]) == 1
    assert not (tmp_path / "rows.json").exists()
