"""Answers that a program reads: holding a model to a schema, naming mistakes, and asking for a correct answer."""

from typing import Any

from pydantic import ValidationError

_LONGEST_QUOTE = 4000
"""Characters of an unreadable answer that are shown to the model again."""

_FENCE, _KINDS = "```", ("", "json", "xml", "text")
_MOST_MISTAKES = 10


def held_to(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The `response_format` of a chat completion that is held to a JSON schema (OpenAI API; vLLM has it too)."""
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}}


def unfenced(text: str) -> str:
    """The text without white space and without a Markdown fence around it."""
    text = text.strip()
    kind, newline, body = text.removeprefix(_FENCE).removesuffix(_FENCE).partition("\n")
    is_fenced = text.startswith(_FENCE) and text.endswith(_FENCE) and len(text) >= 2 * len(_FENCE)
    return body.strip() if is_fenced and newline and kind.strip() in _KINDS else text


def mistakes(error: ValidationError) -> str:
    """What is wrong with a JSON answer, place by place, in one line; of many mistakes the first."""
    return "; ".join(
        f"{'.'.join(map(str, details['loc'])) or 'JSON'}: {details['msg']}"
        for details in error.errors(include_url=False, include_input=False)[:_MOST_MISTAKES]
    )


def repair_messages(text: str, error: ValueError) -> list[dict[str, Any]]:
    """The two messages that follow an answer which cannot be read: the answer, and what is wrong with it."""
    request = (
        f"That answer cannot be read: {error}. Write the whole answer again, in exactly the format asked for, "
        "and nothing else."
    )
    quoted = text[:_LONGEST_QUOTE].strip() or "(nothing)"
    return [{"role": "assistant", "content": quoted}, {"role": "user", "content": request}]
