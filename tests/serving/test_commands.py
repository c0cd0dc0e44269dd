"""`serve` says that it serves once it does, and that an address is taken before it loads anything."""

import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from components.serving.commands import run_server
from tests.tiny_models import write_tiny_package


@pytest.mark.parametrize(("host", "reason"), [("127.0.0.1", "in use"), ("192.0.2.1", "assign requested address")])
def test_an_address_that_cannot_be_had_is_told_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], host: str, reason: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        status = run_server(pytest.fail, tmp_path / "no-package", host, port, "cpu", "float32", ())
    told = capsys.readouterr()
    assert status == 1 and not told.out
    assert f"--host {host} --port {port}: " in told.err and reason in told.err


@pytest.mark.slow
def test_who_reads_that_it_serves_is_answered(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path, tmp_path / "whole").folder
    command = [sys.executable, "-m", "pipelines", "serve", "--package", str(package), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = next(text for text in process.stdout if text.startswith("serving "))
        address = line.partition(" on ")[2].split()[0]
        assert httpx.get(f"{address}/health", timeout=60).status_code == 200
    finally:
        process.terminate()
        process.wait(timeout=60)
