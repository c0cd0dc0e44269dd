"""What attacks on a server have in common."""

import base64
import socket

import httpx

from tests.serving.stubs import level, picture

JPEG = {"Content-Type": "image/jpeg"}


def is_answered(address: str) -> bool:
    answer = httpx.post(f"{address}/enhance?seed=1&strength=2", content=picture(), headers=JPEG, timeout=60)
    return answer.status_code == 200 and level(base64.b64decode(answer.json()["photo"])) > 150


def connected(address: str) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def is_cut(client: socket.socket) -> bool:
    """Whether the server hangs up, whatever it says before."""
    try:
        while client.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True
