"""Decoders and encoders of picture files under `components.images`, which is what the rest of the library calls."""
