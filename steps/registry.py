"""The MLflow Model Registry: one version for the same models used the same way; aliases `challenger` and `champion`."""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository
from mlflow.utils.uri import is_local_uri
from pydantic import ValidationError

from components.champion.address import CHAMPION, IDENTITY_TAG, MODEL
from components.checkout import checkout
from components.models.package import CARD_FILE, MANIFEST_FILE, Package, PackageError, PackageManifest, read_package

log = logging.getLogger(__name__)

CHALLENGER = "challenger"
ROOT = checkout()
_PACKAGE, _ARTIFACTS = "package", "artifacts"
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
    model holds the package, the code of components/ and steps/serving.py, and pins of what that code imports, so that
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
    from steps.requirements import environment
    from steps.serving import SIGNATURE, input_example

    return {
        "python_model": str(ROOT / "steps" / "serving.py"),
        "artifacts": {_PACKAGE: str(package.folder)},
        "code_paths": [str(ROOT / "components")],
        "signature": SIGNATURE,
        "input_example": input_example(),
        "pip_requirements": environment(ROOT / "steps" / "serving.py", ROOT),
    }


def _version_of(identity: str) -> str | None:
    """The newest version of that identity whose files are there; a version that lost them is not the same any more."""
    query = f"name = '{MODEL}' and tags.`{IDENTITY_TAG}` = '{identity}'"
    versions = [int(version.version) for version in mlflow.MlflowClient().search_model_versions(query)]
    for version in sorted(versions, reverse=True):
        try:
            check_files(str(version))
        except PackageError as error:
            log.warning("%s; it is registered anew", error)
        else:
            return str(version)
    return None


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


def version_package(version: str, into: Path | None = None) -> Package:
    """The package of a version, downloaded where the registry is not on this machine.

    Args:
        into: an empty folder below which a copy is made in any case.

    Raises:
        components.models.package.PackageError: its files have been deleted or altered since it was registered.
    """
    uri, where = f"models:/{MODEL}/{version}", str(into) if into else None
    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=f"{uri}/{_ARTIFACTS}", dst_path=where))
        packages = list(folder.iterdir())
    except (MlflowException, OSError) as error:
        raise _unusable(version, f"its files cannot be had: {error}") from error
    if len(packages) != 1:
        raise _unusable(version, f"expected one package, found {len(packages)}")
    try:
        return read_package(packages[0])
    except PackageError as error:
        raise _unusable(version, str(error)) from error


def check_files(version: str) -> None:
    """Check that the files of a version are there: by their hashes on this machine, by their sizes elsewhere.

    Raises:
        components.models.package.PackageError: naming the version, what is wrong, and the command that mends it.
    """
    uri = f"models:/{MODEL}/{version}"
    try:
        if is_local_uri(ModelsArtifactRepository.get_underlying_uri(uri)):
            version_package(version)
            return
        root = f"{uri}/{_ARTIFACTS}"
        stored = _stored_files(root)
        names = [name for name in stored if name.count("/") == 1 and name.endswith(f"/{MANIFEST_FILE}")]
        if len(names) != 1:
            raise _unusable(version, f"expected one package with a {MANIFEST_FILE}, found {len(names)}")
        manifest = PackageManifest.model_validate_json(mlflow.artifacts.load_text(f"{root}/{names[0]}"))
    except (MlflowException, OSError, ValidationError) as error:
        raise _unusable(version, f"its files cannot be had: {error}") from error
    folder = names[0].split("/")[0]
    for name, entry in manifest.files.items():
        if (size := stored.get(f"{folder}/{name}")) != entry.bytes:
            found = "is missing" if size is None else f"has {size:,} bytes, expected {entry.bytes:,}"
            raise _unusable(version, f"{name} {found}")


def _stored_files(root: str) -> dict[str, int]:
    """Sizes in bytes of all files below an artifact URI, by their paths from there."""
    found: dict[str, int] = {}
    folders = [""]
    while folders:
        folder = folders.pop()
        for entry in mlflow.artifacts.list_artifacts(artifact_uri=f"{root}/{folder}".rstrip("/")):
            name = f"{folder}/{entry.path.rsplit('/', 1)[-1]}".lstrip("/")
            if entry.is_dir:
                folders.append(name)
            else:
                found[name] = int(entry.file_size or 0)
    return found


def _unusable(version: str, why: str) -> PackageError:
    return PackageError(
        f"version {version} of {MODEL} cannot be used: {why}. `make pipeline ARGS=--no-cache` makes and registers it "
        f"anew; `make rollback TO=` with the number of another version makes that one champion"
    )
