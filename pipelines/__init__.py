"""The pipelines: what runs in which order, and the command line that runs them."""
