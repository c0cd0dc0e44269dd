"""The pictures in the README: `python -m docs.make_pictures`, after `make pipeline`, writes them to docs/pictures.

    enhanced.jpg    held-out photos: with faults, enhanced by the champion, and as they were. Not the best ones: those
                    at the quartiles of the colour error that was left when the champion was judged, of the photos
                    that are in the public domain
    report-*.jpg    the report of the last pipeline run, at desktop and phone width
    demo-*.jpg      the page of `make demo` with the first of those photos

Needs a Chromium, as the tests of the pages do (`make browser`).
"""

import io
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import click
import torch
from PIL import Image
from torch import Tensor

from components import files
from components.command_line import PATH, Command, Option, run
from components.data.ingest import IngestSettings, build_manifest
from components.data.records import PhotoRecord
from components.demo.app import create_demo
from components.evaluation.evaluate import HeldOutCase, held_out_cases
from components.evaluation.records import EvaluationSettings, read_evaluation
from components.imaging.photo import Photo, resize, to_jpeg_bytes
from components.inference.enhancer import Enhancer
from components.metrics.tables import CASES_FILE, INPUT, METHOD, OURS, PHOTO, VIEW, faulty, read_cases
from components.models.compute import ComputeSettings
from components.serving.service import PhotoService
from tests.browser import DESKTOP, PHONE, chromium, open_page
from tests.serving.conftest import running

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
SIZES = {"desktop": DESKTOP, "phone": PHONE}
_QUARTILES = (0.25, 0.5, 0.75)
_WIDTH, _GAP = 360, 8  # of each photo and between them, pixels
_LARGEST = 150_000  # bytes


def chosen_cases(evaluation: Path, allowed: Collection[str]) -> list[tuple[str, int]]:
    """Photo and view of the cases at the quartiles of the colour error left, best first, photos of ``allowed`` only."""
    table = faulty(read_cases(evaluation / CASES_FILE)).pivot(index=[PHOTO, VIEW], columns=METHOD, values="ciede2000")
    left = (table[OURS] / table[INPUT]).sort_values()
    chosen: dict[str, int] = {}
    for quartile in _QUARTILES:
        by_distance = (left - left.quantile(quartile)).abs().sort_values(kind="stable")
        photo, view = next(case for case in by_distance.index if case[0] in allowed and case[0] not in chosen)
        chosen[photo] = view
    return list(chosen.items())


def enhanced_sheet(enhancer: Enhancer, cases: Sequence[HeldOutCase], seed: int) -> Tensor:
    """A row for each case: with faults, enhanced, and the original; (3, H, W)."""
    rows = []
    for case in cases:
        done = enhancer.enhance(Photo(case.faulty), seed=seed).photo.pixels
        height = round(_WIDTH * case.intact.shape[-2] / case.intact.shape[-1])
        shown = [resize(picture, (height, _WIDTH)) for picture in (case.faulty, done, case.intact)]
        gap = torch.ones(3, height, _GAP)
        rows.append(torch.cat([shown[0], gap, shown[1], gap, shown[2]], dim=-1))
    gap = torch.ones(3, _GAP, rows[0].shape[-1])
    return torch.cat([part for row in rows for part in (row, gap)][:-1], dim=-2)


def write_picture(picture: Tensor, path: Path) -> None:
    """As JPEG of at most 150 kB, with the best quality that allows."""
    for quality in range(90, 39, -5):
        if len(content := to_jpeg_bytes(picture, quality)) <= _LARGEST:
            files.write_bytes(path, content)
            return
    raise ValueError(f"{path}: expected at most {_LARGEST} bytes at quality 40, found {len(content)}: show less")


def photograph_pages(report: Path, service: PhotoService, photo: Path, out: Path) -> None:
    """The report, and the demo page after ``photo`` was enhanced on it, at both widths."""
    with chromium() as browser, running(create_demo(service)) as address:
        for name, size in SIZES.items():
            page, _ = open_page(browser, size)
            page.goto(report.as_uri())
            page.get_by_role("slider").first.scroll_into_view_if_needed()
            write_picture(_decoded(page.screenshot()), out / f"report-{name}.jpg")
            page.goto(address)
            page.get_by_label("Choose a photo").set_input_files(photo)
            page.get_by_role("button", name="Enhance").click()
            page.get_by_text("In its own words").wait_for()
            write_picture(_decoded(page.screenshot()), out / f"demo-{name}.jpg")
            page.close()


_PARAMETERS: list[click.Parameter] = [
    Option(["--package"], type=PATH, default=ROOT / ".spc" / "champion", help="Folder of the package that enhances."),
    Option(
        ["--report"], type=PATH, default=ROOT / "reports" / "latest" / "report.html", help="Report of a pipeline run."
    ),
    Option(["--out"], type=PATH, default=PICTURES, help="Folder to write the pictures to."),
]


@click.command(cls=Command, params=_PARAMETERS)
def main(package: Path, report: Path, out: Path) -> int:
    """Make all pictures."""
    evaluation = package / "evaluation"
    settings = read_evaluation(evaluation).settings
    enhancer = Enhancer.load(package, placement=ComputeSettings().place())
    with tempfile.TemporaryDirectory(prefix="spc-pictures-") as folder:
        records = _records(Path(folder) / "manifest")
        free = [name for name, record in records.items() if record.licence.startswith("CC0")]
        cases = [_case(records[photo], view, settings) for photo, view in chosen_cases(evaluation, free)]
        write_picture(enhanced_sheet(enhancer, cases, settings.seed), out / "enhanced.jpg")
        faulty = Path(folder) / Path(cases[0].record.path).name
        faulty.write_bytes(to_jpeg_bytes(cases[0].faulty, 95))
        photograph_pages(report.resolve(), PhotoService(enhancer), faulty, out)
    credits = [f"- {case.record.path}: {case.record.author}, {case.record.licence}" for case in cases]
    text = "Photos in `enhanced.jpg`, from top to bottom; the first is also on the demo page:\n\n" + "\n".join(credits)
    files.write_text(out / "CREDITS.md", text + "\n")
    return 0


def _records(out: Path) -> dict[str, PhotoRecord]:
    photos = ROOT / "data" / "photos"
    return {record.id: record for record in build_manifest(photos, photos / "ATTRIBUTION.csv", out, IngestSettings())}


def _case(record: PhotoRecord, view: int, settings: EvaluationSettings) -> HeldOutCase:
    return next(case for case in held_out_cases(record, ROOT / "data" / "photos", settings) if case.view == view)


def _decoded(png: bytes) -> Tensor:
    image = Image.open(io.BytesIO(png)).convert("RGB")
    return (
        torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        .view(image.height, image.width, 3)
        .permute(2, 0, 1)
        .float()
        / 255
    )


if __name__ == "__main__":
    sys.exit(run(main, program="python -m docs.make_pictures"))
