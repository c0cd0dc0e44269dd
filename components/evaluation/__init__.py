"""Judging: tasks, classical and generative baselines, the paper's tables, the report, the evaluation of a package."""
