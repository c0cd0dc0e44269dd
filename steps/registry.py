"""The MLflow Model Registry: one version for the same models used the same way; aliases `challenger` and `champion`."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException
from zenml.integrations.mlflow.mlflow_utils import get_tracking_uri

from components.registry.package import CARD_FILE, Package, read_package

MODEL = "smartphotocrafter"
CHALLENGER, CHAMPION = "challenger", "champion"
IDENTITY_TAG = "package.identity"
ROOT = Path(__file__).resolve().parent.parent
_PACKAGE = "package"
_LONGEST_DESCRIPTION = 5000  # characters, a limit of MLflow's stores
_CUT = "\n\n(cut: the whole card is README.md in the package)"


class Registered(NamedTuple):
    """A version of the model in the registry."""

    version: str
    created: bool
    """False when the very same had been registered before."""


def register_package(package: Package, behaviour: Mapping[str, Any]) -> Registered:
    """Log the package to the active MLflow run as a pyfunc and register it, unless the very same is registered already.

    The same is what has equal models and equal ``behaviour``, the settings with which photos are enhanced. The logged
    model holds the package, the code of components/ and steps/serving.py, and the pinned requirements, so that
    `mlflow models serve` needs nothing of this repository.
    """
    from steps.registry_lock import exclusive

    settings = json.dumps(behaviour, sort_keys=True)
    identity = hashlib.sha256(f"{package.manifest.fingerprint} {settings}".encode()).hexdigest()
    if found := _version_of(identity):
        return Registered(found, created=False)
    tags = {IDENTITY_TAG: identity, **package.manifest.provenance.model_dump()}
    logged = mlflow.pyfunc.log_model(name=MODEL, metadata=tags, **flavour(package))
    with exclusive():
        if found := _version_of(identity):  # another process was faster
            return Registered(found, created=False)
        version = mlflow.register_model(logged.model_uri, MODEL, tags=tags)
    set_reasons(str(version.version), "", package)
    return Registered(str(version.version), created=True)


def flavour(package: Package) -> dict[str, Any]:
    """What `mlflow.pyfunc.log_model` and `save_model` need to make the package a model that MLflow can serve alone."""
    from steps.serving import SIGNATURE, input_example

    return {
        "python_model": str(ROOT / "steps" / "serving.py"),
        "artifacts": {_PACKAGE: str(package.folder)},
        "code_paths": [str(ROOT / "components")],
        "signature": SIGNATURE,
        "input_example": input_example(),
        "pip_requirements": str(ROOT / "requirements.lock"),
    }


def _version_of(identity: str) -> str | None:
    query = f"name = '{MODEL}' and tags.`{IDENTITY_TAG}` = '{identity}'"
    versions = [int(version.version) for version in mlflow.MlflowClient().search_model_versions(query)]
    return str(max(versions)) if versions else None


def set_alias(alias: str, version: str) -> None:
    """Let ``alias`` point to ``version`` and to no other."""
    mlflow.MlflowClient().set_registered_model_alias(MODEL, alias, version)


def set_reasons(version: str, reasons: str, package: Package) -> None:
    """Describe a version by what the gate said about it and by its model card, as far as a description may be long.

    The whole card is README.md of the version's package.
    """
    card = (package.folder / CARD_FILE).read_text(encoding="utf-8")
    text = f"{reasons}\n\n{card}".strip()
    if len(text) > _LONGEST_DESCRIPTION:
        text = text[: _LONGEST_DESCRIPTION - len(_CUT)] + _CUT
    mlflow.MlflowClient().update_model_version(MODEL, version, description=text)


def champion_version() -> str | None:
    """The version with the alias `champion` in the current registry, or None before the first promotion."""
    try:
        return str(mlflow.MlflowClient().get_model_version_by_alias(MODEL, CHAMPION).version)
    except MlflowException as error:
        if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            return None
        raise


def resolve_version(name: str) -> str:
    """The version that ``name`` says: a number, or an alias such as "champion".

    Raises:
        ValueError: there is no such version.
    """
    client = mlflow.MlflowClient()
    try:
        found = client.get_model_version(MODEL, name) if name.isdecimal() else None
        return str((found or client.get_model_version_by_alias(MODEL, name)).version)
    except MlflowException as error:
        raise ValueError(f"{MODEL} has no version or alias {name!r} in the registry: run `make pipeline`") from error


def version_package(version: str) -> Package:
    """The package of a version, downloaded where the registry is not on this machine.

    Raises:
        components.registry.package.PackageError: its files have been altered since it was registered.
    """
    uri = f"models:/{MODEL}/{version}"
    folder = mlflow.artifacts.download_artifacts(artifact_uri=uri)
    (package,) = (Path(folder) / "artifacts").iterdir()
    return read_package(package)


def publish_champion(state: Path) -> Path | None:
    """Let ``champion`` in the state folder be the champion's package, where the command line finds it without MLflow.

    It is a link to the registry's own files if these lie in the state folder, and to a copy otherwise. The link is
    replaced in one step, so that whoever reads it meanwhile finds the old champion or the new one, and under a lock,
    so that of two who publish the later one leaves the later champion.

    Returns:
        the folder of the package, or None before the first promotion.
    """
    mlflow.set_tracking_uri(get_tracking_uri())  # outside of a step nothing has; `models:/` URIs know no other way
    with FileLock(state / f"{CHAMPION}.lock"):
        version = champion_version()
        if version is None:
            return None
        package = version_package(version).folder.resolve()
        if not package.is_relative_to(state):
            copy = state / "champions" / version
            shutil.rmtree(copy, ignore_errors=True)
            package = Path(shutil.copytree(package, copy))
        link, new = state / CHAMPION, state / f".{CHAMPION}-{os.getpid()}"
        new.unlink(missing_ok=True)
        new.symlink_to(package)
        new.replace(link)
        return package
