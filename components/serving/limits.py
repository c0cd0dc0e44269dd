"""The limits of a server, which its command offers as options; read without loading what they protect."""

from pydantic import Field

from components.strict import Strict


class ServingLimits(Strict):
    """What a server takes on, so that no request can exhaust the machine."""

    max_bytes: int = Field(default=64 * 2**20, ge=1, description="Largest picture file, in bytes.")
    max_pixels: int = Field(default=64_000_000, ge=1, description="Largest picture, in pixels: width times height.")
    max_photos: int = Field(default=8, ge=1, description="Pictures in one request.")
    waiting: int = Field(default=16, ge=0, description="Requests that may wait; more are turned away (HTTP 429).")
    timeout_seconds: float = Field(
        default=120.0, gt=0, description="Seconds from the arrival of a request to its answer."
    )
    upload_seconds: float = Field(default=30.0, gt=0, description="Seconds for the body of a request to arrive.")
    readers: int = Field(
        default=2, ge=1, description="Pictures that are decoded or encoded at a time, each in a process of its own."
    )
    photo_seconds: float = Field(
        default=30.0, gt=0, description="Seconds of processor time that a picture may take to read, and to write."
    )
    idle_seconds: float = Field(
        default=30.0,
        gt=0,
        description="Seconds for the header of a request to arrive, and for an answer to be read on.",
    )
    connections: int = Field(default=512, ge=1, description="Connections at a time; more are answered 503.")
    end_seconds: float = Field(
        default=20.0, gt=0, description="Seconds that requests at work have to end after SIGTERM or Ctrl-C."
    )
