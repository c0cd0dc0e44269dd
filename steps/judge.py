"""Judge: the paper's tables for registered versions, beside the untouched input and every baseline."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

from steps import registry
from steps.folders import output_folder
from steps.stage import stage
from steps.tables import log_tables
from steps.tracking import tracked


@stage
def judge(
    manifest: Path, data_revision: str, versions: dict[str, str], settings: dict[str, Any]
) -> Annotated[Path, "tables"]:
    """`tables.json`, `tables.parquet`, `tables.html` and `tables.md` of the versions.

    Args:
        versions: version of the registered model by its name in the tables.
        settings: of `components.evaluation.tasks.PaperSettings`.
    """
    from components.champion.address import MODEL
    from components.data.records import read_manifest
    from components.evaluation.paper import make_tables
    from components.evaluation.paper_page import write_pages
    from components.evaluation.tasks import PaperSettings
    from components.inference.enhancer import Enhancer
    from steps.lineage import data_folder

    def load(version: str) -> Enhancer:
        return Enhancer.load(registry.version_package(version).folder, placement=checked.compute.place())

    with tracked({"tables": settings, "versions": versions}) as tracker:
        data, out = data_folder(data_revision), output_folder() / "tables"
        checked = PaperSettings.model_validate(settings)
        variants = {
            name: (partial(load, version), f"version {version} of {MODEL}") for name, version in versions.items()
        }
        tables = make_tables(variants, read_manifest(manifest), data / "photos", data / "base", out, checked)
        write_pages(out, tables)
        log_tables(tracker, tables, out)
        return out
