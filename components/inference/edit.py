"""From what the Artist did at working size to what is done to the photo: whole edit, tone only, with restoration.

An edit is either a field of colour maps (`components.inference.transfer`), which changes tone and colour place by
place, or a look (`components.inference.look`), which is one map for the whole photo. What the Artist changed beyond the
field, such as a blur removed or noise smoothed away, is the restoration; it is known at working size only, is added to
the field's offsets and so enlarged with them. The more the photo is larger than the working size, the less of it there
is to see.
"""

from collections.abc import Callable
from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor

from components.inference.look import fit_look, with_strength
from components.inference.transfer import FieldEdit, TransferSettings, apply_field, fit_field
from components.photometry.looks import apply_look
from components.strict import Strict
from components.verdict.grammar import RESTORATIONS, Verdict

Restore = Literal["never", "asked", "always"]


class EditOptions(Strict):
    """Which part of the Artist's edit reaches the photo."""

    strength: float = Field(default=1.0, ge=0, le=2, description="0 leaves the photo, 1 is the Artist's edit.")
    tone_only: bool = Field(default=False, description="One colour map for the whole photo, nothing local.")
    restore: Restore = Field(
        default="never",
        description="Whether the detail that the Artist changed is carried over too: never, where the Critic asked "
        "for a restoration, or always.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "EditOptions":
        if self.tone_only and self.restore != "never":
            raise ValueError("tone_only changes no detail, so restore must be 'never'")
        return self


def fit_edit(
    before: Tensor,
    after: Tensor,
    height: int,
    options: EditOptions,
    transfer: TransferSettings,
    verdict: Verdict | None,
) -> Callable[[Tensor, int], Tensor]:
    """The edit of a photo of ``height`` rows, strip by strip, as `Original.edited` wants it.

    Args:
        before, after: (3, h, w) the photo at working size and what the Artist made of it.
        height: rows of the whole photo.
        options: which part of the edit is wanted, and how much.
        transfer: how the field is fitted.
        verdict: what the Critic said, for ``restore="asked"``.

    Raises:
        ValueError: a value is not finite or the shapes differ.
    """
    if options.tone_only:
        look = with_strength(fit_look(before, after), options.strength)
        return lambda strip, top: apply_look(strip, look)
    field = fit_field(before, after, transfer)
    if options.restore == "always" or (options.restore == "asked" and asks_for_restoration(verdict)):
        field[9:] += after - apply_field(before.clamp(0, 1), field)
    return FieldEdit(field * options.strength, height)


def asks_for_restoration(verdict: Verdict | None) -> bool:
    """Whether the Critic suggests to remove blur, noise or another fault of detail."""
    return verdict is not None and any(suggestion.operation in RESTORATIONS for suggestion in verdict.suggestions)
