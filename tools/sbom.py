"""What the product is made of, with licences, as CycloneDX: `make sbom`.

CycloneDX's own reader lists what is installed in this environment; what only development needs is left out, so that the
list is that of requirements.lock, which the image installs.
"""

import json
import subprocess
import sys
from pathlib import Path

from components import files
from steps.requirements import normalised

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "reports" / "sbom.cdx.json"
_LOCAL = "smartphotocrafter"


def main() -> int:
    """Write the list; 1 where it is not that of the lock, with what differs."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-format", "JSON", "--output-reproducible"]
    listed = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    locked = pinned()
    kept = [component for component in listed["components"] if normalised(component["name"]) in locked]
    found = {normalised(component["name"]): component["version"] for component in kept}
    if wrong := sorted(name for name, version in locked.items() if found.get(name) != version):
        print(f"not installed as requirements.lock has it: {', '.join(wrong)}", file=sys.stderr)
        return 1
    references = {component["bom-ref"] for component in kept}
    links = [entry for entry in listed.get("dependencies", []) if entry["ref"] in references]
    for entry in links:
        entry["dependsOn"] = [name for name in entry.get("dependsOn", []) if name in references]
    files.write_text(OUT, json.dumps(listed | {"components": kept, "dependencies": links}, indent=1) + "\n")
    unknown = sorted(component["name"] for component in kept if not component.get("licenses"))
    print(f"{OUT}: {len(kept)} packages; {len(unknown)} say no licence: {', '.join(unknown) or 'none'}")
    return 0


def pinned() -> dict[str, str]:
    """Version of each package in requirements.lock, by its normalised name."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = (line.split(";")[0].strip().split("==") for line in lines if line and line[0] != "#")
    return {normalised(name): version for name, version in pins}


if __name__ == "__main__":
    raise SystemExit(main())
