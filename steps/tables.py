"""Put the paper's tables into the MLflow run of a step: every mean as a metric, every file as an artifact."""

from pathlib import Path
from typing import TYPE_CHECKING

from steps.tracking import MlflowTracker

if TYPE_CHECKING:
    from components.evaluation.paper import PaperTables


def log_tables(tracker: MlflowTracker, tables: "PaperTables", folder: Path) -> None:
    """Log ``tables``, whose files and pages are in ``folder``."""
    from components.evaluation.paper import CASES_FILE, TABLES_FILE
    from components.evaluation.paper_page import MARKDOWN_FILE, PAGE_FILE

    tracker.metrics(
        {
            f"{table.name}/{row.method}/{name}": interval.value
            for table in tables.tables
            for row in table.rows
            for name, interval in row.measures.items()
        },
        0,
    )
    for name in (TABLES_FILE, CASES_FILE, PAGE_FILE, MARKDOWN_FILE):
        tracker.artifact(folder / name, "tables")
