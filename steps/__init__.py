"""The steps of the pipelines, one a file: unpack inputs, call one component, log, pack outputs."""
