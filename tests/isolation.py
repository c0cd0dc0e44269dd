"""Puts ZenML and MLflow of the test process into a temporary state folder, before anything imports ``zenml``.

ZenML reads its environment once, at import, so this is done when the conftest of a package that needs it is loaded,
and every test of the session shares the folder.
"""

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path

from pipelines.environment import State, prepare


@functools.cache
def isolate() -> State:
    """The state folder of this test session, made at the first call and removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="spc-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["SPC_STATE"] = str(folder)
    return prepare()
