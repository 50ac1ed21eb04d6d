"""A server beside the training, for WSGI and for ASGI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import train

train.say("up server")


def wsgi(_environ: object, start_response: Callable[[str, list[object]], object]) -> list[bytes]:
    start_response("200 OK", [])
    return [b"training"]


async def asgi(_scope: object, _receive: object, send: Callable[[dict[str, object]], Awaitable[None]]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"training"})
