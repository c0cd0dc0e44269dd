"""Write requirements.lock and requirements-dev.lock from what is installed in this environment: `make lock`.

The first pins all that requirements.in asks for and pulls in, the second what else requirements-dev.in does.
"""

import importlib.metadata
import re
from pathlib import Path

from steps.requirements import closure, normalised, requested

ROOT = Path(__file__).resolve().parent.parent
_ONLY_LINUX = re.compile(r"(nvidia-|cuda-|triton==)")
_HEADS = {
    "requirements.lock": "# Every package that the product needs, pinned by `make lock` from requirements.in.",
    "requirements-dev.lock": "# What development needs beside requirements.lock, pinned by `make lock` from "
    "requirements-dev.in.",
}


def main() -> None:
    product = closure(requested(ROOT / "requirements.in"))
    development = closure(requested(ROOT / "requirements-dev.in")) - product
    for (name, head), packages in zip(_HEADS.items(), (product, development), strict=True):
        lines = [_pin(distribution) for distribution in sorted(packages)]
        (ROOT / name).write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")


def _pin(name: str) -> str:
    distribution = importlib.metadata.distribution(name)
    line = f"{normalised(distribution.name)}=={distribution.version}"
    condition = ' ; sys_platform == "linux" and platform_machine == "x86_64"'
    return f"{line}{condition if _ONLY_LINUX.match(line) else ''}"


if __name__ == "__main__":
    main()
