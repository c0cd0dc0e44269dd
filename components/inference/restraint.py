"""Restraint: a photo that the Critic finds good is left alone, one that it finds poor gets the whole edit.

An Artist that has to guess changes every photo a little, and a photo that needs nothing can only lose by it. How far
its edit goes therefore depends on how much the Critic finds wrong:

    strength = clip((fault - low) / width, 0, 1),    fault = 100 - score

`low` and `width` belong to a pair of Critic and Artist. They are chosen on validation photos, where they trade error
left on faulty photos against harm done to good ones, and travel with the package in the settings it was judged with.
"""

from pydantic import Field

from components.strict import Strict
from components.verdict.grammar import Verdict


class RestraintSettings(Strict):
    """How the strength of an edit follows from the Critic's score; a width of 0 means always the whole edit."""

    low: float = Field(
        default=0.0, ge=0, le=100, description="Fault, 100 minus the score, up to which a photo is left as it is."
    )
    width: float = Field(
        default=0.0,
        ge=0,
        le=100,
        description="Points of fault over which the edit grows to its whole; 0: no restraint.",
    )


def restraint(verdict: Verdict | None, settings: RestraintSettings) -> float:
    """The share of the edit, 0 to 1, that a photo with such a verdict gets; 1 where the verdict could not be read."""
    return 1.0 if verdict is None else share_of_edit(100 - verdict.score, settings)


def share_of_edit(fault: float, settings: RestraintSettings) -> float:
    """The share of the edit, 0 to 1, that a photo with such a fault gets."""
    return min(1.0, max(0.0, (fault - settings.low) / settings.width)) if settings.width else 1.0
