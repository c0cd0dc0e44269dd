"""Random generators named by what they are for, so that results do not depend on order, count or processes."""

import hashlib

import torch


def generator_for(seed: int, *purpose: str | int) -> torch.Generator:
    """A generator seeded by a hash of ``seed`` and ``purpose``, such as a photo's hash and the index of a view."""
    digest = hashlib.sha256("/".join(map(str, (seed, *purpose))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
