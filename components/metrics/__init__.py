"""Measures of pictures (with a reference, without one, learned) and of tables, with intervals over photos."""
