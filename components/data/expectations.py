"""Validation of a manifest with Great Expectations, and its Data Docs.

The context is ephemeral: stores live in memory, analytics are off, and the only files written are the Data Docs in
the directory that is given. Only the columns that the suite looks at are held in memory. Great Expectations takes
seconds to import, so it is imported when a manifest is checked: whoever only reads settings need not wait for it.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas
from pydantic import Field

from components.data.duplicates import twins_in_other_groups
from components.data.records import Manifest
from components.data.splits import SPLITS
from components.strict import Strict

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuiteValidationResult
    from great_expectations.data_context import EphemeralDataContext
    from great_expectations.expectations import Expectation

log = logging.getLogger(__name__)
logging.getLogger("great_expectations").setLevel(logging.WARNING)  # it reports its own class registrations as INFO

_NEAR_DUPLICATE = "near_duplicate_in_another_split"
_OWN_SHA256 = "sha256_of_inputs"
_INCOMPLETE = "pair_without_another_role"
_TORN = "pair_across_splits"
_HALF = "pair_or_role_missing"
_OFF_SCALE = "mos_error"
_COLUMNS = (
    *("id", "path", "sha256", "perceptual_hash", "width", "height", "bit_depth", "split", "licence"),
    *("mos", "mos_original", "mos_low", "mos_high", "mos_ascending", "pair", "role"),
)
_NAMED = 5  # photos named in a failure
_MOS_TOLERANCE = 1e-3  # of 100: published scores are rounded, ours are not


class ValidationSettings(Strict):
    """What a manifest must satisfy before anything is trained on it."""

    min_train: int = Field(default=1, ge=0, description="Fewest photos in the train split.")
    min_validation: int = Field(default=1, ge=0, description="Fewest photos in the validation split.")
    min_test: int = Field(default=1, ge=0, description="Fewest photos in the test split.")
    min_side: int = Field(default=64, ge=1, description="Smallest width and height, pixels.")
    max_side: int = Field(default=32_768, ge=1, description="Largest width and height, pixels.")
    duplicate_distance: int = Field(
        default=6, ge=0, lt=16, description="Photos of two splits whose perceptual hashes differ by this or fewer bits."
    )
    max_quarantined: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Largest share of files left out at ingestion, of those that are there; files that a dataset lists "
        "and that are absent are a warning.",
    )


class ValidationReport(Strict):
    """The outcome, in words and numbers."""

    success: bool
    failures: tuple[str, ...] = Field(description="One sentence for each expectation that was not met.")
    warnings: tuple[str, ...] = Field(default=(), description="What the data lack and can be trained on without.")
    statistics: dict[str, float] = Field(description="Counts and shares, fit for a tracker.")


def validate(manifest: Manifest, docs: Path, settings: ValidationSettings) -> ValidationReport:
    """Check a manifest against the suite and build Data Docs.

    Args:
        manifest: as `components.data.ingest.build_manifest` gives.
        docs: directory for the Data Docs (index.html), created; nothing is written elsewhere.

    Returns:
        the report; ``success`` is False when any expectation failed. Nothing is raised for bad data.
    """
    import great_expectations as gx

    frame = _frame(manifest, settings.duplicate_distance)
    context = _context(Path(docs).resolve())
    asset = context.data_sources.add_pandas("photos").add_dataframe_asset("manifest")
    batch = asset.add_batch_definition_whole_dataframe("all")
    suite = context.suites.add(gx.ExpectationSuite(name="manifest", expectations=_expectations(settings)))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name="manifest", data=batch, suite=suite))
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(
            name="manifest",
            validation_definitions=[definition],
            result_format={
                "result_format": "SUMMARY",
                "partial_unexpected_count": 20,
                "unexpected_index_column_names": ["id"],
            },
        )
    )
    outcome = checkpoint.run(batch_parameters={"dataframe": frame})
    context.build_data_docs()
    (result,) = outcome.run_results.values()
    failures = _failures(result)
    absent = sum(entry.absent for entry in manifest.quarantine)
    left_out = len(manifest.quarantine) - absent
    there = len(manifest) + left_out
    if there and left_out / there > settings.max_quarantined:
        failures.append(f"{left_out} of {there} files are quarantined, more than {settings.max_quarantined:.0%}")
    warnings = []
    if absent:
        first = next(entry.path for entry in manifest.quarantine if entry.absent)
        warnings.append(
            f"{absent} of {there + absent} files are listed by their datasets and not there (the first: {first}): "
            "complete the download, or go on with the rest"
        )
    for warning in warnings:
        log.warning("validation: %s", warning)
    for failure in failures:
        log.error("validation: %s", failure)
    statistics = {
        "photos": float(len(manifest)),
        "quarantined": float(len(manifest.quarantine)),
        "absent": float(absent),
        "expectations": float(result.statistics["evaluated_expectations"]),
        "expectations_met": float(result.statistics["successful_expectations"]),
        "median_megapixels": float((frame["width"] * frame["height"]).median() / 1e6),
        "rated": float(frame["mos"].notna().sum()),
        **{f"photos_{split}": float((frame["split"] == split).sum()) for split in SPLITS},
    }
    return ValidationReport(
        success=not failures, failures=tuple(failures), warnings=tuple(warnings), statistics=statistics
    )


def _frame(manifest: Manifest, distance: int) -> pandas.DataFrame:
    """The manifest as a frame, with columns that are empty where a photo keeps a rule that spans several of them."""
    frame = manifest.frame(_COLUMNS)
    splits = pandas.Categorical(frame["split"])
    twins = twins_in_other_groups(frame["perceptual_hash"].tolist(), splits.codes, distance)
    frame[_NEAR_DUPLICATE] = frame["id"].take(twins.clip(0)).where(twins >= 0, None).to_numpy(object)
    for split in SPLITS:
        frame[f"is_{split}"] = (frame["split"] == split).astype(np.int8)
    paired = frame["pair"].notna()
    frame[_OWN_SHA256] = frame["sha256"].where(~paired | (frame["role"] == "input"))
    frame[_HALF] = frame["id"].where(paired != frame["role"].notna())
    members = frame.loc[paired, ["pair", "split", "role"]].groupby("pair", sort=False)
    frame[_TORN] = frame["pair"].where(frame["pair"].isin(_where(members["split"].nunique() > 1)))
    frame[_INCOMPLETE] = frame["pair"].where(frame["pair"].isin(_where(members["role"].nunique() < 2)))
    share = (frame["mos_original"] - frame["mos_low"]) / (frame["mos_high"] - frame["mos_low"])
    ascending = frame["mos_ascending"].map({True: True, False: False}).fillna(True).astype(bool)
    frame[_OFF_SCALE] = (frame["mos"] - 100 * share.where(ascending, 1 - share)).abs()
    return frame.drop(columns=["mos_low", "mos_high", "mos_ascending"])


def _where(mask: pandas.Series) -> list[str]:
    return mask.index[mask].tolist()


def _context(docs: Path) -> "EphemeralDataContext":
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    defaults = InMemoryStoreBackendDefaults()
    site = {
        "class_name": "SiteBuilder",
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs)},
    }
    config = DataContextConfig(
        store_backend_defaults=defaults,
        data_docs_sites={"docs": site},
        analytics_enabled=False,
        progress_bars=ProgressBarsConfig(globally=False),
    )
    return gx.get_context(project_config=config, mode="ephemeral")


def _expectations(settings: ValidationSettings) -> "list[Expectation]":
    """The suite. ``meta`` carries the sentence that is reported when an expectation is not met."""
    from great_expectations import expectations as expect

    sides = {"min_value": settings.min_side, "max_value": settings.max_side}
    minimum = {"train": settings.min_train, "validation": settings.min_validation, "test": settings.min_test}
    suite: list[Expectation] = [
        expect.ExpectTableRowCountToBeBetween(min_value=1, meta=_meta("the manifest has no photos")),
        expect.ExpectColumnValuesToBeUnique(column="id", meta=_meta("ids occur twice")),
        expect.ExpectColumnValuesToBeUnique(column="path", meta=_meta("paths occur twice")),
        expect.ExpectColumnValuesToBeUnique(column=_OWN_SHA256, meta=_meta("the same file occurs twice")),
        expect.ExpectColumnValuesToMatchRegex(
            column="sha256", regex="^[0-9a-f]{64}$", meta=_meta("content hashes are not SHA-256")
        ),
        expect.ExpectColumnValuesToMatchRegex(
            column="perceptual_hash", regex="^[0-9a-f]{16}$", meta=_meta("perceptual hashes are not 64-bit")
        ),
        expect.ExpectColumnValuesToBeNull(
            column=_NEAR_DUPLICATE,
            meta=_meta(
                "photos look like a photo of another split; set ingest.overlap_distance to "
                f"{settings.duplicate_distance} to leave out those that are trained on, or remove one of each two"
            ),
        ),
        expect.ExpectColumnValuesToBeBetween(column="width", **sides, meta=_meta("widths are out of range")),
        expect.ExpectColumnValuesToBeBetween(column="height", **sides, meta=_meta("heights are out of range")),
        expect.ExpectColumnValuesToBeInSet(
            column="bit_depth", value_set=[8, 16], meta=_meta("bit depths are neither 8 nor 16")
        ),
        expect.ExpectColumnValuesToNotBeNull(column="licence", meta=_meta("photos have no licence")),
        expect.ExpectColumnValueLengthsToBeBetween(
            column="licence", min_value=1, meta=_meta("photos have an empty licence")
        ),
        expect.ExpectColumnValuesToBeInSet(
            column="split", value_set=list(SPLITS), meta=_meta("splits are not train, validation or test")
        ),
        expect.ExpectColumnValuesToBeBetween(
            column="mos", min_value=0, max_value=100, meta=_meta("opinion scores are outside 0..100")
        ),
        expect.ExpectColumnValuesToBeBetween(
            column=_OFF_SCALE,
            max_value=_MOS_TOLERANCE,
            meta=_meta("opinion scores are not the published ones on the scale of 0 to 100"),
        ),
        expect.ExpectColumnValuesToBeNull(
            column=_HALF, meta=_meta("photos have a pair without a role, or a role alone")
        ),
        expect.ExpectColumnValuesToBeNull(column=_TORN, meta=_meta("versions of one photo lie in several splits")),
        expect.ExpectColumnValuesToBeNull(column=_INCOMPLETE, meta=_meta("pairs lack their input or their target")),
    ]
    suite += [
        expect.ExpectColumnSumToBeBetween(
            column=f"is_{split}", min_value=count, meta=_meta(f"the {split} split has fewer than {count} photos")
        )
        for split, count in minimum.items()
    ]
    return suite


def _meta(failure: str) -> dict[str, str]:
    return {"failure": failure}


def _failures(result: "ExpectationSuiteValidationResult") -> list[str]:
    """A sentence for each expectation that was not met, naming up to five of the photos concerned."""
    failures = []
    for outcome in result.results:
        if outcome.success:
            continue
        sentence = outcome.expectation_config.meta["failure"]
        if outcome.exception_info.get("raised_exception"):
            sentence += f" (could not be checked: {outcome.exception_info.get('exception_message')})"
        rows = outcome.result.get("partial_unexpected_index_list") or []
        if count := outcome.result.get("unexpected_count"):
            named = ", ".join(str(row["id"]) for row in rows[:_NAMED])
            sentence += f" ({count}): {named}{', ...' if count > _NAMED else ''}"
        elif (observed := outcome.result.get("observed_value")) is not None:
            sentence += f", found {observed}"
        failures.append(sentence)
    return failures
