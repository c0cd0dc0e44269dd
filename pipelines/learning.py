"""From annotations and pairs to a promoted model: what the graphs with and without shards have in common."""

from collections.abc import Callable, Sequence
from typing import Any

from steps.adapt_artist import adapt_artist
from steps.evaluate import evaluate
from steps.promote import promote
from steps.reinforce import reinforce
from steps.train_artist import train_artist
from steps.train_critic import train_critic

Start = Callable[..., Any]
"""How a step is added to a graph: called with the step and its inputs; what comes back stands for its outputs."""
REFINING = [adapt_artist, reinforce, evaluate, promote]
"""Steps of `refine`."""
LEARNING = [train_critic, train_artist, *REFINING]
"""Steps of `learn`."""


def learn(start: Start, manifest: Any, annotations: Any, pairs: Any, revision: str, settings: dict[str, Any]) -> None:
    """Add all stages from the first training to the gate.

    Args:
        start: see `Start`.
        manifest, annotations, pairs: outputs of the steps before.
        revision: the DVC revision of data/.
        settings: a checked configuration as plain data.
    """
    # Stage I, foundation: the two modules apart
    critic = start(train_critic, annotations, revision, settings["train_critic"])
    artist = start(train_artist, pairs, revision, settings["train_artist"])

    refine(start, critic, artist, manifest, pairs, revision, settings)


def refine(
    start: Start,
    critic: Any,
    artist: Any,
    manifest: Any,
    pairs: Any,
    revision: str,
    settings: dict[str, Any],
    after: Sequence[Any] = (),
) -> None:
    """Add the stages that take two trained modules on, and the gate; not before ``after``, outputs of other steps."""
    # Stage II, reasoning-conditioned adaptation: the Artist follows the Critic
    artist = start(adapt_artist, critic, artist, pairs, revision, settings["adapt_artist"], after=list(after))

    # Stage III, coordinated reinforcement learning: both in one loop
    critic, artist = start(reinforce, critic, artist, pairs, revision, settings["reinforce"])

    # Judgement: held-out photos, then the gate; a champion that is not beaten stays
    package, _ = start(evaluate, critic, artist, manifest, revision, settings["evaluate"])
    start(promote, package, manifest, revision, settings["gate"], settings["evaluate"])
