"""`make ui` attacked over HTTP as a web page, a stranger and its own user could: the real process on real servers."""

import base64
import json
import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from zenml import constants
from zenml.enums import AuthScheme, StoreType
from zenml.models import ServerDeploymentType

from pipelines import dashboards
from pipelines.environment import ROOT, State
from pipelines.guard import MLFLOW_WRITES, ZENML_WRITES, password_of
from tests.browser import DESKTOP, chromium, open_page

WAIT = 90.0


class Ui(NamedTuple):
    """A running `make ui`."""

    state: State
    process: "subprocess.Popen[str]"
    zenml: str
    mlflow: str
    password: str
    experiment: str
    """Id of an MLflow experiment."""


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for opened in sockets:
        opened.bind(("127.0.0.1", 0))
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def start(folder: Path, ports: list[int]) -> "subprocess.Popen[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ZENML", "MLFLOW", "SPC"))}
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "pipelines", "ui", "--port", str(ports[0]), "--zenml-port", str(ports[1])],
        cwd=ROOT,
        env={**kept, "SPC_STATE": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ask(method: str, url: str, **given: Any) -> httpx.Response:
    """The answer to one request, without the cookies of others; the first ones of a server take their time."""
    return httpx.request(method, url, timeout=WAIT, **given)


def answers(url: str, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + WAIT
    while True:
        try:
            httpx.get(f"{url}/health", timeout=5)
            return
        except httpx.HTTPError:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    """`make ui` over a store that `make stack` has made, stopped by Ctrl-C."""
    folder = tmp_path_factory.mktemp("state")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ZENML", "MLFLOW", "SPC"))}
    made = subprocess.run(
        [sys.executable, "-c", MAKE], cwd=ROOT, env={**kept, "SPC_STATE": str(folder)}, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    ports = free_ports(2)
    process = start(folder, ports)
    mlflow, zenml = (f"http://127.0.0.1:{port}" for port in ports)
    try:
        answers(mlflow, process)
        answers(zenml, process)
        password, _ = password_of(folder / "ui-password")
        yield Ui(State(folder), process, zenml, mlflow, password, made.stdout.split()[-1])
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=120)
        assert output.count(f"password {password} (kept in") == 1
        for port in ports:
            with socket.socket() as attempt:
                assert attempt.connect_ex(("127.0.0.1", port)) != 0, "it is left over"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


MAKE = """
from pipelines.environment import prepare
state = prepare()
from pipelines.stack import read_stack, register
register(read_stack("local", state))
import mlflow
mlflow.set_tracking_uri(state.tracking_uri)
print(mlflow.create_experiment("of the test"))
"""


@pytest.fixture(scope="module")
def token(ui: Ui) -> dict[str, str]:
    """What ZenML's own user sends."""
    asked = {"username": "default", "password": ui.password}
    done = ask("POST", f"{ui.zenml}/api/v1/login", data=asked).raise_for_status().json()
    return {"Authorization": f"Bearer {done['access_token']}"}


def test_the_password_is_the_users_alone_and_stays(ui: Ui) -> None:
    file = ui.state.folder / "ui-password"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    assert password_of(file) == (ui.password, False)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(ui.password) >= 20


@pytest.mark.parametrize("path", ["components", "artifact_versions", "users", "stacks", "secrets", "current-user"])
def test_nobody_sees_zenmls_store_without_the_password(ui: Ui, path: str) -> None:
    assert ask("GET", f"{ui.zenml}/api/v1/{path}").status_code == 401
    assert ask("GET", f"{ui.zenml}/api/v1/{path}", headers={"Authorization": "Bearer x"}).status_code == 401


@pytest.mark.parametrize("password", ["", "default", "wrong"])
def test_no_other_password_opens(ui: Ui, password: str) -> None:
    asked = {"username": "default", "password": password}
    assert ask("POST", f"{ui.zenml}/api/v1/login", data=asked).status_code in (401, 422)
    assert ask("GET", f"{ui.mlflow}/", auth=("default", password)).status_code == 401


@pytest.mark.parametrize("server", ["zenml", "mlflow"])
@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9", "http://localhost:9", "{own}.x"]
)
def test_pages_of_other_sites_get_nothing(ui: Ui, token: dict[str, str], server: str, origin: str) -> None:
    url = getattr(ui, server)
    credentials = token if server == "zenml" else httpx.BasicAuth("default", ui.password)
    given = {"auth": credentials} if server == "mlflow" else {}
    headers = {**(token if server == "zenml" else {}), "Origin": origin.format(own=url)}
    path = "/api/v1/components" if server == "zenml" else "/ajax-api/2.0/mlflow/experiments/search?max_results=5"
    preflight = ask(
        "OPTIONS",
        url + path,
        headers={**headers, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x"},
    )
    for answer in (preflight, ask("GET", url + path, headers=headers, **given)):
        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.startswith("access-control-allow")]
    own = {**headers, "Origin": url}
    assert ask("GET", url + path, headers=own, **given).status_code == 200


@pytest.mark.parametrize("server", ["zenml", "mlflow"])
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1.evil.example:{port}", ""]
)
def test_a_name_that_was_made_to_point_here_gets_nothing(ui: Ui, token: dict[str, str], server: str, host: str) -> None:
    url = getattr(ui, server)
    headers = {**token, "Host": host.format(port=url.rpartition(":")[2])}
    for path in ("/", "/api/v1/users", "/ajax-api/2.0/mlflow/experiments/search?max_results=5"):
        assert ask("GET", url + path, headers=headers).status_code == 400


def test_its_own_user_can_make_no_artifact_store_and_read_no_file_by_one(
    ui: Ui, token: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "private.txt").write_text("hidden")
    project = ask("GET", f"{ui.zenml}/api/v1/projects", headers=token).raise_for_status().json()["items"][0]["id"]
    (store,) = ask(
        "GET", f"{ui.zenml}/api/v1/components", headers=token, params={"type": "artifact_store", "name": "default"}
    ).json()["items"]
    body = {"name": "root", "type": "artifact_store", "flavor": "local", "configuration": {"path": "/"}}
    planted = {"artifact_store_id": store["id"], "uri": str(tmp_path), "type": "DataArtifact", "project": project}
    attempts = [
        ("POST", "/api/v1/components", body),
        ("PUT", f"/api/v1/components/{store['id']}", {"configuration": {"path": "/"}}),
        ("POST", "/api/v1/stacks", {"name": "x", "components": {"artifact_store": [{"flavor": "local"}]}}),
        ("POST", "/api/v1/artifact_versions", planted),
        ("POST", "/api/v1/artifact_versions/batch", [planted]),
        ("POST", "/api/v1/logs", {"uri": str(tmp_path / "private.txt"), "artifact_store_id": store["id"]}),
        ("POST", "/api/v1/flavors", {"name": "x", "source": "os.system"}),
        ("POST", "/api/v1/secrets", {"name": "x", "values": {}}),
        ("DELETE", f"/api/v1/components/{store['id']}", None),
        ("PUT", "/api/v1/current-user", {"full_name": "x"}),
    ]
    for method, path, content in attempts:
        for variant in (path, path + "/", "/" + path, path.replace("/api", "/%61pi"), path + "?x=/api/v1/login"):
            answer = ask(method, ui.zenml + variant, headers=token, json=content)
            assert answer.status_code == 403, (method, variant, answer.text)
            assert "hidden" not in answer.text


@pytest.mark.parametrize("path", ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/assets/..%2f..%2f..%2fauth.py"])
def test_no_path_leads_out_of_the_pages(ui: Ui, path: str) -> None:
    for url, auth in ((ui.zenml, None), (ui.mlflow, ("default", ui.password))):
        answer = ask("GET", url + path, auth=auth)
        assert "root:" not in answer.text
        assert "def authenticate" not in answer.text


def test_mlflow_asks_for_the_password_and_makes_nothing_that_has_files(ui: Ui, tmp_path: Path) -> None:
    (tmp_path / "private.txt").write_text("hidden")
    api = f"{ui.mlflow}/api/2.0/mlflow"
    search = f"{api}/experiments/search"
    assert ask("POST", search, json={"max_results": 5}).status_code == 401
    with httpx.Client(auth=("default", ui.password), timeout=WAIT) as client:
        found = client.post(search, json={"max_results": 5}).raise_for_status().json()["experiments"]
        assert ui.experiment in {experiment["experiment_id"] for experiment in found}
        mine = {"experiment_id": ui.experiment, "key": "k", "value": "v"}
        client.post(f"{api}/experiments/set-experiment-tag", json=mine).raise_for_status()
        source = {"name": "x", "source": f"file://{tmp_path}"}
        for method, path, content in [
            ("POST", "/api/2.0/mlflow/experiments/create", {"name": "x", "artifact_location": f"file://{tmp_path}"}),
            ("POST", "/ajax-api/2.0/mlflow/experiments/create", {"name": "x", "artifact_location": "/"}),
            ("POST", "/api/2.0/mlflow/runs/create", {"experiment_id": ui.experiment}),
            ("POST", "/api/2.0/mlflow/model-versions/create", source),
            ("POST", "/api/2.0/mlflow/logged-models", {"experiment_id": ui.experiment}),
            ("POST", "/ajax-api/2.0/mlflow/upload-artifact?run_uuid=x&path=y", {}),
            ("PUT", "/api/2.0/mlflow-artifacts/artifacts/x", {}),
            ("POST", "/ajax-api/2.0/mlflow/gateway-proxy", {}),
            ("POST", "/ajax-api/3.0/jobs", {}),
        ]:
            answer = client.request(method, ui.mlflow + path, json=content)
            assert answer.status_code == 403, (path, answer.text)


def test_the_pipelines_go_on_without_a_password(ui: Ui) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ZENML", "MLFLOW", "SPC"))}
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "stack"],
        cwd=ROOT,
        env={**kept, "SPC_STATE": str(ui.state.folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "stack local is active" in done.stdout, done.stderr


def test_the_server_is_active_and_tells_nobody(ui: Ui, token: dict[str, str]) -> None:
    info = ask("GET", f"{ui.zenml}/api/v1/info").json()
    assert info["active"] is True
    assert info["analytics_enabled"] is False
    user = ask("GET", f"{ui.zenml}/api/v1/current-user", headers=token).json()
    assert user["body"]["email_opted_in"] is False
    assert user["metadata"]["user_metadata"]["finished_onboarding_survey"] is True


def test_a_browser_sees_every_page_after_the_password_and_no_survey(ui: Ui) -> None:
    with chromium() as browser:
        page, _ = open_page(browser, DESKTOP)
        page.set_default_timeout(180_000)
        page.goto(f"{ui.zenml}/stacks")
        page.wait_for_url(re.compile(r"/login\?"))
        # The form moves so much that typing takes minutes without a graphics card: what it sends, and notes, instead.
        asked = {"username": "default", "password": ui.password}
        assert page.context.request.post(f"{ui.zenml}/api/v1/login", form=asked).ok
        page.add_init_script("localStorage.setItem('isAuthenticated', 'true')")
        for path, heading in {
            "/projects/default/pipelines": "Pipelines",
            "/projects/default/runs": "Runs",
            "/stacks": "Stacks",
            "/settings/general": "General",
            "/settings/profile": "Profile",
        }.items():
            page.goto(ui.zenml + path)
            page.wait_for_function("heading => document.body.innerText.includes(heading)", arg=heading)
            assert page.url == ui.zenml + path
            text = page.evaluate("document.body.innerText")
            assert not re.search(r"(?i)newsletter|your email|log in to|sign up|tell us", text), text


def test_a_store_that_was_planted_before_is_named_and_not_served(ui: Ui, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    (folder / "zenml" / "local_stores" / "default_zen_store").mkdir(parents=True)
    database = "zenml/local_stores/default_zen_store/zenml.db"
    source, copy = sqlite3.connect(ui.state.folder / database), sqlite3.connect(folder / database)
    with source, copy:
        source.backup(copy)
        copy.execute(
            "update stack_component set configuration = ? where type = 'artifact_store' and name != 'default'",
            (_encoded({"path": "/"}),),
        )
    source.close()
    copy.close()
    process = start(folder, free_ports(2))
    output, _ = process.communicate(timeout=WAIT)
    assert process.returncode == 2
    assert "lies at /, outside" in output


def _encoded(configuration: dict[str, str]) -> bytes:
    return base64.b64encode(json.dumps(configuration).encode())


def test_a_port_that_is_taken_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert dashboards.serve(State(tmp_path), port, 1) == 2
    assert f"MLflow's port {port} is taken" in capsys.readouterr().err
    assert not (tmp_path / "ui-password").exists()


@pytest.mark.parametrize(
    ("request_line", "allowed"),
    [
        ("POST /api/2.0/mlflow/runs/search", True),
        ("POST /ajax-api/2.0/mlflow/experiments/search-datasets", True),
        ("POST /graphql", True),
        ("POST /api/2.0/mlflow/registered-models/alias", True),
        ("DELETE /ajax-api/2.0/mlflow/registered-models/alias", True),
        ("POST /ajax-api/2.0/mlflow/runs/set-tag", True),
        ("PATCH /api/2.0/mlflow/model-versions/update", True),
        ("POST /api/2.0/mlflow/experiments/create", False),
        ("POST /api/2.0/mlflow/experiments/create/search/../create", False),
        ("POST /api/2.0/mlflow/searchx/create", False),
        ("POST /graphql\n", False),
    ],
)
def test_mlflows_pages_search_label_and_move_aliases(request_line: str, allowed: bool) -> None:
    assert bool(MLFLOW_WRITES.fullmatch(request_line)) == allowed
    assert not ZENML_WRITES.fullmatch(request_line)


pytestmark = pytest.mark.slow


def test_the_environment_is_what_zenml_reads(tmp_path: Path) -> None:
    environment = dashboards.zenml_environment(State(tmp_path), tmp_path / "zenml.db", 8237)
    store = constants.ENV_ZENML_STORE_PREFIX
    assert set(environment) == {
        constants.ENV_ZENML_SERVER,
        constants.ENV_ZENML_CONFIG_PATH,
        constants.ENV_ZENML_DISABLE_DATABASE_MIGRATION,
        constants.ENV_ZENML_SERVER_DEPLOYMENT_TYPE,
        constants.ENV_ZENML_SERVER_AUTH_SCHEME,
        constants.ENV_ZENML_SERVER_AUTO_ACTIVATE,
        constants.ENV_ZENML_SERVER_ALLOW_LOCAL_FILE_ACCESS,
        f"{constants.ENV_ZENML_SERVER_PREFIX}CORS_ALLOW_ORIGINS",
        f"{store}TYPE",
        f"{store}URL",
    }
    scheme = AuthScheme(environment[constants.ENV_ZENML_SERVER_AUTH_SCHEME])
    assert scheme is AuthScheme.OAUTH2_PASSWORD_BEARER
    assert ServerDeploymentType(environment[constants.ENV_ZENML_SERVER_DEPLOYMENT_TYPE]) is ServerDeploymentType.LOCAL
    assert StoreType(environment[f"{store}TYPE"]) is StoreType.SQL
    assert Path(environment[constants.ENV_ZENML_CONFIG_PATH]) != State(tmp_path).zenml  # looking changes nothing
