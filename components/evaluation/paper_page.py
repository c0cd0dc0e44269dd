"""The paper's tables as one HTML file that needs nothing beside it, and as Markdown."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from components import files
from components.evaluation.paper import LOWER, Difference, PaperTable, PaperTables
from components.evaluation.plots import SIZE, environment, plot
from components.evaluation.report import TITLES, Curves, method_title
from components.metrics.full_reference import UNITS
from components.metrics.learned import LEARNED

TEMPLATE = "tables.html.j2"
PAGE_FILE, MARKDOWN_FILE = "tables.html", "tables.md"
_TITLES = TITLES | {name: item.title for name, item in LEARNED.items()}


def write_pages(
    out: Path,
    tables: PaperTables,
    title: str = "The four tables",
    differences: Sequence[Difference] = (),
    curves: Mapping[str, Curves] | None = None,
) -> None:
    """Write `tables.html` and `tables.md` into ``out``.

    Args:
        title: heading of the page.
        differences: between variants, case by case.
        curves: rewards during reinforcement, by variant; those of the same name are drawn together.
    """
    files.write_text(out / PAGE_FILE, render_page(tables, title, differences, curves))
    files.write_text(out / MARKDOWN_FILE, render_markdown(tables, differences))


def render_page(
    tables: PaperTables,
    title: str = "The four tables",
    differences: Sequence[Difference] = (),
    curves: Mapping[str, Curves] | None = None,
) -> str:
    """The HTML; the best value of each column is marked. See `write_pages`."""
    curves = curves or {}
    names = dict.fromkeys(name for own in curves.values() for name in own)
    together = {
        name: {method_title(variant): own[name] for variant, own in curves.items() if name in own} for name in names
    }
    templates = environment()
    templates.filters["method"] = method_title
    return templates.get_template(TEMPLATE).render(
        tables=tables,
        title=title,
        differences=differences,
        surely_better=[item for item in differences if _surely_better(item)],
        plots=[drawn for name, lines in together.items() if (drawn := plot(name, lines))],
        plot_size=SIZE,
        titles=_TITLES,
        units=UNITS,
        lower=LOWER,
        best={table.name: {name: _best(table, name) for name in table.measures} for table in tables.tables},
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


def render_markdown(tables: PaperTables, differences: Sequence[Difference] = ()) -> str:
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
    if differences:
        lines += ["## Differences, case by case", "", "| Variants | Measure | Difference |", "|---|---|---|"]
        lines += [
            f"| {method_title(item.method)} minus {method_title(item.reference)} | {_TITLES[item.measure]} "
            f"{'↓' if LOWER[item.measure] else '↑'} | {item.change.value:+.4g} ({item.change.low:+.4g} to "
            f"{item.change.high:+.4g}) |"
            for item in differences
        ]
        lines.append("")
    if tables.unavailable:
        lines += ["Not available on this machine:", ""]
        lines += [f"- {_TITLES.get(gap.name, gap.name)}: `{gap.command}`" for gap in tables.unavailable]
        lines.append("")
    return "\n".join(lines)


def _surely_better(difference: Difference) -> bool:
    """Whether the interval lies on the better side of 0."""
    return difference.change.high < 0 if LOWER[difference.measure] else difference.change.low > 0


def _best(table: PaperTable, name: str) -> str:
    choose = min if LOWER[name] else max
    return choose(table.rows, key=lambda row: row.measures[name].value).method
