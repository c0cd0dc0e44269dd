"""The paper's tables as one HTML file that needs nothing beside it, and as Markdown."""

from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from components import files
from components.evaluation.learned import LEARNED
from components.evaluation.metrics import UNITS
from components.evaluation.paper import LOWER, PaperTable, PaperTables
from components.evaluation.report import TITLES, method_title

TEMPLATE = Path(__file__).with_name("tables.html.j2")
PAGE_FILE, MARKDOWN_FILE = "tables.html", "tables.md"
_TITLES = TITLES | {name: item.title for name, item in LEARNED.items()}


def write_pages(out: Path, tables: PaperTables) -> None:
    """Write `tables.html` and `tables.md` into ``out``."""
    files.write_text(out / PAGE_FILE, render_page(tables))
    files.write_text(out / MARKDOWN_FILE, render_markdown(tables))


def render_page(tables: PaperTables) -> str:
    """The HTML; the best value of each column is marked."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["method"] = method_title
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        tables=tables,
        titles=_TITLES,
        units=UNITS,
        lower=LOWER,
        best={table.name: {name: _best(table, name) for name in table.measures} for table in tables.tables},
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


def render_markdown(tables: PaperTables) -> str:
    """The same tables for a model card or a terminal."""
    lines = []
    for table in tables.tables:
        heads = [f"{_TITLES[name]} {'↓' if LOWER[name] else '↑'}" for name in table.measures]
        lines += [f"## {table.title}", "", f"| Method | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
        for row in table.rows:
            cells = [
                f"{row.measures[name].value:.4g} ({row.measures[name].low:.4g} to {row.measures[name].high:.4g})"
                for name in table.measures
            ]
            lines.append(f"| {method_title(row.method)} | {' | '.join(cells)} |")
        lines.append("")
    if tables.unavailable:
        lines += ["Not available on this machine:", ""]
        lines += [f"- {_TITLES.get(gap.name, gap.name)}: `{gap.command}`" for gap in tables.unavailable]
        lines.append("")
    return "\n".join(lines)


def _best(table: PaperTable, name: str) -> str:
    choose = min if LOWER[name] else max
    return choose(table.rows, key=lambda row: row.measures[name].value).method
