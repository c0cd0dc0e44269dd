"""Titles of the rewards' curves, for whoever draws what stage III reported."""

from components.reinforcement.rewards.artist import ARTIST_REWARDS, TOTAL
from components.reinforcement.rewards.critic import CRITIC_REWARDS

_WHOLE = {
    "artist/reward_total": f"Artist, {TOTAL}",
    "critic/reward": "Critic, total",
    "validation/reward_total": f"Validation, {TOTAL}",
}
CURVE_TITLES: dict[str, str] = _WHOLE | {
    f"{module}/reward_{name}": f"{module.capitalize()}, {reward.title}"
    for module, rewards in (("artist", ARTIST_REWARDS), ("critic", CRITIC_REWARDS), ("validation", ARTIST_REWARDS))
    for name, reward in rewards.items()
}
"""Titles by metric, without the `reinforce/` before it."""
