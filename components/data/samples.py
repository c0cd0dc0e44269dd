"""Samples that cannot be used, wherever they lie: what their readers raise, and loaders may do without."""


class SampleError(ValueError):
    """A sample cannot be used; the message names it, and says what to do where something can be done."""
