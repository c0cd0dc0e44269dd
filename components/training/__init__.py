"""The training engine (loop, checkpoints, distribution) and the supervised stages I and II."""
