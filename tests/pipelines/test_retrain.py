"""Retraining: newest data, nothing without a change, a failure leaves the champion and raises an alert."""

import json
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

from pipelines import alerts, retrain
from pipelines.environment import State
from tests.pipelines.loopback import serving

pytestmark = pytest.mark.slow

SETTINGS = {"reinforce": {"iterations": 1}}
OLD, NEW = (f"outs:\n- md5: {digit * 32}.dir\n  path: data\n" for digit in "01")
RUN = """
import os, pathlib, signal, sys
pathlib.Path("ran").write_text(" ".join(sys.argv[1:]))
print("loss is not finite")
if os.environ.get("END") == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(os.environ.get("END", "0")))
"""


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone of a repository whose `smartphotocrafter` notes that it ran and ends as $END says."""
    origin = tmp_path / "origin"
    for name in ("components", "steps", "pipelines"):
        (origin / name).mkdir(parents=True)
        (origin / name / "__init__.py").write_text("")
    (origin / "pipelines" / "__main__.py").write_text(RUN)
    (origin / "requirements.lock").write_text("torch==1\n")
    (origin / "data.dvc").write_text(OLD)
    git(origin, "init", "--quiet", "--initial-branch", "main")
    git(origin, "add", "--all")
    git(origin, "commit", "--quiet", "--message", "first")
    git(tmp_path, "clone", "--quiet", str(origin), "clone")
    monkeypatch.setattr(retrain, "dvc_checkout", lambda folder: retrain.data_revision(folder))
    monkeypatch.delenv(alerts.WEBHOOK, raising=False)
    return tmp_path / "clone"


@pytest.fixture
def state(tmp_path: Path) -> State:
    (tmp_path / "state").mkdir()
    return State(tmp_path / "state")


def once(root: Path, state: State, force: bool = False) -> retrain.Retrained:
    (root / "ran").unlink(missing_ok=True)
    return retrain.retrain(SETTINGS, ["--stack", "local"], "local", state, force=force, root=root)


def completed(root: Path, state: State) -> None:
    """What the run itself notes when it completes."""
    retrain.remember(retrain.current_inputs(SETTINGS, root), "local", state)


def test_the_first_time_it_runs_and_goes_on_from_the_champion(root: Path, state: State) -> None:
    assert once(root, state) == (0, "Retraining complete.")
    assert (root / "ran").read_text() == "run --from-champion --stack local"


def test_nothing_is_done_when_nothing_changed_unless_it_is_forced(root: Path, state: State) -> None:
    completed(root, state)
    done = once(root, state)
    assert done.code == 0
    assert done.message.startswith("Nothing to do: data, code and configuration are those of the run")
    assert not (root / "ran").exists()
    assert once(root, state, force=True).message == "Retraining complete."


@pytest.mark.parametrize(
    ("path", "text", "changed"),
    [
        ("data.dvc", NEW, ["data"]),
        ("steps/ingest.py", "x = 1\n", ["code"]),
        ("requirements.lock", "torch==2\n", ["code"]),
    ],
)
def test_what_changed_is_named(root: Path, state: State, path: str, text: str, changed: list[str]) -> None:
    completed(root, state)
    (root / path).write_text(text)
    assert retrain.changes(retrain.current_inputs(SETTINGS, root), "local", state) == changed
    assert retrain.changes(retrain.current_inputs({}, root), "local", state) == [*changed, "configuration"]
    assert retrain.changes(retrain.current_inputs(SETTINGS, root), "kubernetes", state) is None


def test_newer_data_is_taken_from_the_upstream_branch(root: Path, state: State) -> None:
    completed(root, state)
    origin = root.parent / "origin"
    (origin / "data.dvc").write_text(NEW)
    (origin / "steps" / "new.py").write_text("")
    git(origin, "add", "--all")
    git(origin, "commit", "--quiet", "--message", "more photos")
    assert "newer data taken from origin/main" in retrain.fetch_newest_data(root)
    assert (root / "data.dvc").read_text() == NEW
    assert not (root / "steps" / "new.py").exists(), "the code under a running process stays"
    assert once(root, state).message == "Retraining complete."
    assert "no newer data" in retrain.fetch_newest_data(root)


def test_data_that_was_changed_here_stays(root: Path) -> None:
    (root / "data.dvc").write_text(NEW)
    origin = root.parent / "origin"
    (origin / "data.dvc").write_text(NEW.replace("1", "2"))
    git(origin, "commit", "--quiet", "--all", "--message", "other photos")
    assert "was changed here" in retrain.fetch_newest_data(root)
    assert (root / "data.dvc").read_text() == NEW


@pytest.mark.parametrize(("end", "words"), [("3", "ended with code 3"), ("kill", "was killed by signal 9")])
def test_a_failure_raises_an_alert_and_is_tried_again(
    root: Path, state: State, monkeypatch: pytest.MonkeyPatch, end: str, words: str
) -> None:
    monkeypatch.setenv("END", end)
    with serving(lambda request: (200, {})) as webhook:
        monkeypatch.setenv(alerts.WEBHOOK, f"{webhook.url}/hook")
        done = once(root, state)
    assert done.code == 1
    assert words in done.message
    (posted,) = webhook.asked
    sent = json.loads(posted.body)
    assert (posted.method, posted.path) == ("POST", "/hook")
    assert "the champion stays in service" in sent["title"]
    assert "loss is not finite" in sent["text"]
    assert json.loads((state.folder / alerts.FILE).read_text()) == sent
    assert retrain.last_run("local", state) is None
    monkeypatch.setenv("END", "0")
    assert once(root, state).code == 0


def test_a_webhook_that_is_down_hides_nothing_and_is_not_named(
    state: State, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(alerts.WEBHOOK, "http://127.0.0.1:9/token-of-the-hook")
    assert not alerts.alert("title", "text", state.folder)
    assert json.loads((state.folder / alerts.FILE).read_text())["title"] == "title"
    assert "token-of-the-hook" not in caplog.text


def test_fired_twice_at_once_it_runs_once(root: Path, state: State) -> None:
    with FileLock(state.lock):
        done = once(root, state)
    assert done.code == 0
    assert done.message.startswith("Nothing done: another pipeline is running here")
    assert not (state.folder / alerts.FILE).exists()
    assert not (root / "ran").exists()


def test_a_damaged_record_does_not_stop_retraining(root: Path, state: State) -> None:
    completed(root, state)
    (state.folder / "last-run-local.json").write_text("{")
    assert once(root, state).message == "Retraining complete."
