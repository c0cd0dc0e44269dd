"""The steps of the pipelines, one per file: unpack inputs, call one component, log, pack outputs."""
