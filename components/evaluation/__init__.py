"""Judging: error measures, classical baselines, tables with intervals, the report, and the evaluation of a package."""
