"""The page of a drift report: one HTML file with inline SVG histograms, readable without a network or a script."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_WIDTH, _HEIGHT, _GAP = 360, 110, 2
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0 2rem; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child, th:last-child, td:last-child { text-align: left; }
figure { display: inline-block; margin: 0 1.5rem 1.5rem 0; vertical-align: top; }
figcaption { margin-bottom: .3rem; }
.now { fill: #2b6cb0; fill-opacity: .75; } .before { fill: #b0b7c0; } .axis { font-size: 11px; fill: #555; }
.stable { color: #23713c; } .moderate { color: #9a6700; } .large { color: #b3261e; font-weight: 600; }
"""


def render_page(report: Mapping[str, Any]) -> str:
    """The page of a report, as `components.data.drift.DriftReport` dumps it with its "worst" verdict."""
    first = report["previous_photos"] is None
    if first:
        summary = f"The first data version, {report['current_photos']} photos measured: nothing to compare it with yet."
    else:
        summary = (
            f"{report['current_photos']} photos measured against {report['previous_photos']} of the version before. "
            f"Largest shift: {report['worst']} (moderate from a PSI of {report['moderate']:g}, large from "
            f"{report['large']:g})."
        )
    revisions = f"Version {_revision(report['current_revision'])}"
    if not first:
        revisions += f", before: {_revision(report['previous_revision'])}"
    rows = "\n".join(_row(shift) for shift in report["shifts"])
    figures = "\n".join(_figure(shift) for shift in report["shifts"])
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Data drift</title><style>{_STYLE}</style></head><body>
<h1>Data drift</h1>
<p>{escape(summary)}</p>
<p>{revisions}. Blue: this version{"" if first else "; grey: the version before"}.</p>
<table><thead><tr><th>attribute</th><th>PSI</th><th>KS</th><th>KS p</th><th>median</th><th>median before</th>
<th>verdict</th></tr></thead><tbody>
{rows}
</tbody></table>
{figures}
</body></html>
"""


def _revision(revision: str | None) -> str:
    return f"<code>{escape(revision)}</code>" if revision else "without a revision"


def _row(shift: Mapping[str, Any]) -> str:
    numbers = [shift[name] for name in ("psi", "ks", "ks_p_value", "current_median", "previous_median")]
    cells = "".join(f"<td>{'' if number is None else f'{number:.3g}'}</td>" for number in numbers)
    verdict = shift["verdict"]
    return f'<tr><td>{escape(shift["name"])}</td>{cells}<td class="{verdict.split()[0]}">{verdict}</td></tr>'


def _figure(shift: Mapping[str, Any]) -> str:
    now, before = shift["current"], shift["previous"]
    caption = f"<b>{escape(shift['name'])}</b>, {escape(shift['unit'])}"
    if not shift["current_count"] and not shift["previous_count"]:
        return f"<figure><figcaption>{caption}: no photo has one.</figcaption></figure>"
    tallest = max((*now, *before)) or 1.0
    step = _WIDTH / len(now)
    bars = _bars(before, tallest, step, "before", inset=0) + _bars(now, tallest, step, "now", inset=step * 0.2)
    label = f"{shift['name']}: {shift['current_count']} values now, {shift['previous_count']} before"
    return (
        f'<figure><figcaption>{caption}</figcaption><svg width="{_WIDTH}" height="{_HEIGHT + 20}" role="img" '
        f'aria-label="{escape(label)}">{bars}{_axis(shift, step)}</svg></figure>'
    )


def _bars(shares: Sequence[float], tallest: float, step: float, style: str, inset: float) -> str:
    bars = []
    for number, share in enumerate(shares):
        height = _HEIGHT * share / tallest
        bars.append(
            f'<rect class="{style}" x="{number * step + inset:.1f}" y="{_HEIGHT - height:.1f}" '
            f'width="{max(1, step - _GAP - 2 * inset):.1f}" height="{height:.1f}"><title>{share:.1%}</title></rect>'
        )
    return "".join(bars)


def _axis(shift: Mapping[str, Any], step: float) -> str:
    y = _HEIGHT + 14
    if shift["bins"]:
        letters = max(2, int(step / 6.5))
        names = [name if len(name) <= letters else f"{name[: letters - 1]}…" for name in shift["bins"]]
        return "".join(
            f'<text class="axis" x="{number * step:.1f}" y="{y}"><title>{escape(full)}</title>{escape(name)}</text>'
            for number, (name, full) in enumerate(zip(names, shift["bins"], strict=True))
        )
    low, high = shift["edges"][0], shift["edges"][-1]
    return (
        f'<text class="axis" x="0" y="{y}">{low:.3g}</text>'
        f'<text class="axis" x="{_WIDTH}" y="{y}" text-anchor="end">{high:.3g}</text>'
    )
