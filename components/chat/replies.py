"""What a chat completion says, read from the JSON of a server that may send anything."""

from typing import NamedTuple

from pydantic import BaseModel, Field, ValidationError


class Token(NamedTuple):
    """A token that the model wrote, and what it thought of writing there instead.

    Attributes:
        text: of the token.
        alternatives: (text, natural logarithm of its probability) of the likeliest tokens there, itself among them.
    """

    text: str
    alternatives: tuple[tuple[str, float], ...]


class Completion(NamedTuple):
    """What the model wrote."""

    text: str
    cut_off: bool
    """Whether it ended at the token limit."""
    thought: str = ""
    """What stood in <think> tags, when the server has taken it out of the text."""
    tokens: tuple[Token, ...] = ()
    """The text token by token, when probabilities were asked for (``logprobs``) and the server gives them."""


class MalformedReply(ValueError):  # noqa: N818 (reads as a sentence where it is caught)
    """The body is no chat completion; the message says where it differs."""


class _Message(BaseModel):
    content: str | None = None
    reasoning_content: str | None = None  # transformers serve, older vLLM
    reasoning: str | None = None  # vLLM, OpenRouter


class _Alternative(BaseModel):
    token: str
    logprob: float = Field(le=1e-3, allow_inf_nan=True)  # 0 is certainty, and rounding may lift it a little


class _TokenChance(_Alternative):
    top_logprobs: list[_Alternative] = []


class _Chances(BaseModel):
    content: list[_TokenChance] | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Chances | None = None


class Usage(BaseModel):
    """Tokens as the server counts them."""

    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(default=0, ge=0)


class _Reply(BaseModel):
    """The part of a chat completion that is used."""

    choices: list[_Choice] = Field(min_length=1)
    usage: Usage | None = None


def read_reply(content: bytes) -> tuple[Completion, Usage | None]:
    """What the model wrote, and the tokens it took if the server counts them.

    Raises:
        MalformedReply: the body is no chat completion.
    """
    try:
        reply = _Reply.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "body"
        raise MalformedReply(f"not a chat completion: {place}: {first['msg']}") from None
    choice = reply.choices[0]
    thought = choice.message.reasoning_content or choice.message.reasoning or ""
    chances = (choice.logprobs and choice.logprobs.content) or []
    tokens = (Token(c.token, tuple((a.token, a.logprob) for a in (c.top_logprobs or [c]))) for c in chances)
    completion = Completion(choice.message.content or "", choice.finish_reason == "length", thought, tuple(tokens))
    return completion, reply.usage
