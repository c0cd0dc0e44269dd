"""The Enhancer: Critic and Artist joined, photo in and better photo out at full resolution.

The Critic looks at a reduced photo and writes its verdict; the hidden states of prompt and verdict condition the
Artist, which edits the photo at its working size, several times from different noise; the mean of the edits is carried
over to the photo's own pixels (`components.inference.transfer`). No instruction by a person is needed.

`plan` needs the reduced photo only, and `components.inference.edit` makes of it the edit. `enhance` applies that to a
photo held as floats at once; `components.inference.workflow` applies it strip by strip to photos of many megapixels.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from pydantic import Field
from torch import Tensor

from components.champion.copies import held
from components.imaging.photo import Photo, short_side_size
from components.inference.edit import EditOptions, fit_edit
from components.inference.restraint import RestraintSettings, restraint
from components.inference.transfer import TransferSettings
from components.models.artist import Artist
from components.models.compute import Placement
from components.models.critic import Critic, ReasoningLatent
from components.models.package import Package, read_package
from components.models.sampling import sample_edits
from components.strict import Strict
from components.verdict.grammar import Verdict, parses

EARLIER_NAME = "crafter"
"""Key of the settings in the tables of packages that were evaluated before `enhancer` became their name."""
_LARGEST_RATIO = 150
"""Longer pictures are shown to the Critic squeezed; Qwen2.5-VL's processor takes none from 200 on."""
SETTINGS_FILE = "enhancer.json"
"""In a package that was not evaluated here: how photos are to be enhanced with it."""
_TABLE_FILE = "table.json"  # of components.evaluation, which depends on this module


class EnhancerSettings(Strict):
    """How a photo is enhanced; the same at evaluation and in use."""

    critic_short_side: int = Field(
        default=160,
        ge=28,
        description="Shorter side of the picture that the Critic sees, as in the stored pairs. Pixels.",
    )
    max_new_tokens: int = Field(default=200, ge=2, description="Longest verdict; a longer one is cut off. Tokens.")
    steps: int = Field(default=8, ge=1, description="Euler steps of the Artist; 20 in the release.")
    draws: int = Field(default=4, ge=1, description="Edits from different noise that are averaged.")
    mirrored: bool = Field(
        default=False, description="Judge and edit the mirrored photo too, and average: twice the work."
    )
    strength: float = Field(default=1.0, ge=0, le=2, description="0 leaves the photo, 1 is the Artist's edit.")
    restraint: RestraintSettings = Field(
        default_factory=RestraintSettings, description="How much less of it a photo gets that the Critic finds good."
    )
    transfer: TransferSettings = Field(default_factory=TransferSettings)


class Reducible(Protocol):
    """As much of a photo as Critic and Artist need: its size, and its reduced pictures."""

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...

    def reduced(self, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """The photo reduced to each of some sizes (height, width), float32 (3, h, w) sRGB in [0, 1]."""


@dataclass(frozen=True)
class Critique:
    """What the Critic wrote.

    Attributes:
        text: the completion, word for word.
        verdict: the completion parsed, or None when it is not in the grammar.
    """

    text: str
    verdict: Verdict | None


@dataclass(frozen=True)
class EditPlan:
    """What Critic and Artist make of a photo, at working size: all that is needed to edit it at any size.

    Attributes:
        text: what the Critic wrote, word for word.
        verdict: the same parsed, or None when it is not in the grammar.
        before: (3, h, w) the photo at the Artist's working size, through the autoencoder as the edit is.
        after: (3, h, w) the mean of the Artist's edits.
    """

    text: str
    verdict: Verdict | None
    before: Tensor
    after: Tensor


@dataclass(frozen=True)
class Enhanced:
    """The result for one photo.

    Attributes:
        photo: the edited photo; size, EXIF, profile, alpha and bit depth are those of the input.
        text: what the Critic wrote, word for word.
        verdict: the same parsed, or None when it is not in the grammar.
        before_small: (3, h, w) the photo at the Artist's working size, through the autoencoder as the edit is.
        after_small: (3, h, w) the mean of the Artist's edits.
        strength: of the edit, as asked for or as the Critic's score made it; 0 where the photo was left as it is.
    """

    photo: Photo
    text: str
    verdict: Verdict | None
    before_small: Tensor
    after_small: Tensor
    strength: float


class Enhancer:
    """Critic and Artist as one thing that enhances photos.

    Args:
        critic: with its adapter.
        artist: with its adapter.
    """

    def __init__(self, critic: Critic, artist: Artist, settings: EnhancerSettings | None = None):
        self.critic, self.artist, self.settings = critic, artist, settings or EnhancerSettings()

    @classmethod
    def load(
        cls, package: Path, settings: EnhancerSettings | None = None, placement: Placement | None = None
    ) -> "Enhancer":
        """Load a package directory (`components.models.package`) after verifying every file of it.

        Args:
            settings: by default those that the package was evaluated with, so that it is used as it was judged, or
                those that came with it.

        Raises:
            components.models.package.PackageError: it is not a whole, unaltered package.
        """
        with held(Path(package)) as folder:
            verified = read_package(folder)
            settings = settings or _as_judged(verified)
            return cls.from_parts(verified.base, verified.critic_adapter, verified.artist_adapter, settings, placement)

    @classmethod
    def from_parts(
        cls,
        base: Path,
        critic_adapter: Path | None,
        artist_adapter: Path | None,
        settings: EnhancerSettings | None = None,
        placement: Placement | None = None,
    ) -> "Enhancer":
        """Load base models from ``base/critic`` and ``base/artist`` and adapters from their own directories."""
        placement = placement or Placement()
        critic = Critic.load(Path(base) / "critic", critic_adapter, placement, only_used=True)
        artist = Artist.load(Path(base) / "artist", artist_adapter, placement, only_used=True)
        return cls(critic, artist, settings)

    def critique(self, photo: Reducible) -> Critique:
        """The Critic's opinion of a photo, without an edit."""
        (view,) = photo.reduced([self._shown_size(photo)])
        (text,) = self.critic.generate([view], max_new_tokens=self.settings.max_new_tokens).texts
        return Critique(text, parses(text))

    def enhance(self, photo: Photo, seed: int = 0, draws: int | None = None, strength: float | None = None) -> Enhanced:
        """Enhance one photo.

        Args:
            photo: of any size from 1x1 up.
            seed: of the Artist's noise; the same seed gives the same bytes.
            draws: how many edits are averaged, by default that of the settings.
            strength: 0 to 2, by default `strength_for`.
        """
        (result,) = self.enhance_many([photo], seed, draws, strength)
        return result

    @torch.no_grad()
    def plan(self, photo: Reducible, seed: int = 0, draws: int | None = None) -> EditPlan:
        """Judge and edit a photo at working size, without touching it. See `enhance` for the arguments.

        Raises:
            ValueError: ``draws`` is below 1.
        """
        (plan,) = self._plan_many([photo], seed, self.settings.draws if draws is None else draws)
        return plan

    @torch.no_grad()
    def enhance_many(
        self, photos: Sequence[Photo], seed: int = 0, draws: int | None = None, strength: float | None = None
    ) -> list[Enhanced]:
        """Enhance photos, each by itself, with one pass of the Critic over all of them. See `enhance`.

        Raises:
            ValueError: ``draws`` is below 1 or ``strength`` outside [0, 2].
        """
        draws = self.settings.draws if draws is None else draws
        if draws < 1 or (strength is not None and not 0 <= strength <= 2):
            raise ValueError(f"expected draws >= 1 and strength in [0, 2], found {draws} and {strength}")
        if not photos:
            return []
        results = []
        for photo, plan in zip(photos, self._plan_many(photos, seed, draws), strict=True):
            options = EditOptions(strength=self.strength_for(plan.verdict) if strength is None else strength)
            edit = fit_edit(plan.before, plan.after, photo.height, options, self.settings.transfer, plan.verdict)
            edited = photo.with_pixels(edit(photo.pixels.clone(), 0))
            results.append(Enhanced(edited, plan.text, plan.verdict, plan.before, plan.after, options.strength))
        return results

    def strength_for(self, verdict: Verdict | None) -> float:
        """The strength of the edit of a photo with such a verdict, where nobody asks for another."""
        return self.settings.strength * restraint(verdict, self.settings.restraint)

    def _plan_many(self, photos: Sequence[Reducible], seed: int, draws: int) -> list[EditPlan]:
        """One pass of the Critic over all photos, then each photo's edits."""
        if draws < 1:
            raise ValueError(f"expected draws >= 1, found {draws}")
        reduced = [
            photo.reduced([self._shown_size(photo), self.artist.working_size(photo.height, photo.width)])
            for photo in photos
        ]
        views, smalls = [view for view, _ in reduced], [small for _, small in reduced]
        count = len(views)
        if self.settings.mirrored:
            views = views + [view.flip(-1) for view in views]
        rollout = self.critic.generate(views, max_new_tokens=self.settings.max_new_tokens)
        plans = []
        for index, small in enumerate(smalls):
            before, after = self._edit(small, rollout.latent[index::count], draws, seed)
            plans.append(EditPlan(rollout.texts[index], parses(rollout.texts[index]), before, after))
        return plans

    def _shown_size(self, photo: Reducible) -> tuple[int, int]:
        """Height and width of what the Critic is shown: the photo's form, but no form that its processor refuses."""
        height, width = short_side_size(photo.height, photo.width, self.settings.critic_short_side)
        return min(height, _LARGEST_RATIO * width), min(width, _LARGEST_RATIO * height)

    def _edit(self, small: Tensor, latent: ReasoningLatent, draws: int, seed: int) -> tuple[Tensor, Tensor]:
        """The photo at working size through the autoencoder, and the mean of the edits, both (3, h, w).

        Args:
            latent: H_c of the photo and, if the settings say so, of the mirrored photo: one or two rows.
        """
        device = latent.states_BLD.device
        length = int(latent.mask_BL.sum(dim=1).max())  # other photos of the batch may have longer verdicts
        latent = ReasoningLatent(latent.states_BLD[:, :length], latent.mask_BL[:, :length])
        small = small.to(device)
        sources = torch.stack([small, small.flip(-1)][: len(latent.states_BLD)])
        rows = torch.arange(len(sources), device=device).repeat_interleave(draws)
        generator = torch.Generator().manual_seed(seed)
        edits = sample_edits(self.artist, sources[rows], latent[rows], self.settings.steps, generator)
        rebuilt = self.artist.decode(self.artist.encode(sources), self.artist.grid(sources))
        return _average(rebuilt, 1).cpu(), _average(edits, draws).cpu()


def _as_judged(package: Package) -> EnhancerSettings:
    """The settings recorded in the table of an evaluation, or those that came with a package, or the defaults."""
    table, given = package.evaluation / _TABLE_FILE, package.folder / SETTINGS_FILE
    if not table.is_file():
        text = given.read_text(encoding="utf-8") if given.is_file() else "{}"
        return EnhancerSettings.model_validate_json(text)
    recorded = json.loads(table.read_text(encoding="utf-8"))["settings"]
    return EnhancerSettings.model_validate(recorded["enhancer" if "enhancer" in recorded else EARLIER_NAME])


def _average(pictures: Tensor, draws: int) -> Tensor:
    """Mean (3, h, w) of ``draws`` upright pictures and, if there are more, as many mirrored ones, turned back."""
    return torch.cat([pictures[:draws], pictures[draws:].flip(-1)]).mean(dim=0)
