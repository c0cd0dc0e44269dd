"""The one fixed prompt of the Critic, and the chat layout around it.

No human instruction exists at inference, so the prompt never changes; the tiny models use the same words.
"""

from typing import Any

SYSTEM = "You are a helpful assistant that follows user instructions."
PROMPT = (
    "Assess this photo: quality, colour and light, composition, aesthetic impression. "
    "Suggest edits, then score it from 0 to 100."
)


def conversation(prompt: str = PROMPT) -> list[dict[str, Any]]:
    """Chat messages for one photo: system, then the image followed by the prompt."""
    return [
        {"role": "system", "content": [{"type": "text", "text": SYSTEM}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]},
    ]
