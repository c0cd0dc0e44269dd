"""The checked configuration of a run, checked once for each state of the code and the text."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.environment import ROOT, State


def checked_settings(config: Path, overrides: Sequence[str], state: State) -> dict[str, Any]:
    """The settings in ``config`` with ``overrides``, complete with defaults, as plain data.

    Checking imports every component, and with them the model libraries, which takes longer than a run in which all
    steps come from the cache; so the outcome is kept, under a hash of the code and the text that were checked.

    Raises:
        components.settings.SettingsError: a ValueError with one line for each mistake.
    """
    text = config.read_bytes() if config.is_file() else b""
    digest = hashlib.sha256(json.dumps([str(config), text.decode("latin-1"), list(overrides)]).encode())
    for path in [*sorted((ROOT / "components").rglob("*.py")), ROOT / "requirements.lock"]:
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    kept = state.folder / "settings" / f"{digest.hexdigest()}.json"
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))

    from components.files import write_text
    from components.settings import load_settings

    settings = load_settings(config, overrides).model_dump(mode="json")
    shutil.rmtree(kept.parent, ignore_errors=True)
    write_text(kept, json.dumps(settings))
    return settings
