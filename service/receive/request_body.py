"""The body of an HTTP request as it comes."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

from starlette.requests import ClientDisconnect
from starlette.types import Receive

DRAINED = 4 << 20
DRAIN_SECONDS = 1.0
"""What is still read of a request that is refused: many clients look for an answer only when they have sent all."""


class RequestBody:
    """Its chunks, each within a time and all within another; only waiting for them is ever interrupted.

    Parameters
    ----------
    receive
        Of the ASGI application.
    idle_seconds, longest_seconds
        How long the next chunk may take, and all of them.
    """

    def __init__(self, receive: Receive, idle_seconds: float, longest_seconds: float) -> None:
        self._receive, self._idle_seconds = receive, idle_seconds
        self._deadline = time.monotonic() + longest_seconds
        self._whole = False

    async def chunks(self) -> AsyncIterator[bytes]:
        """What has not been read yet. Raises `TimeoutError`, and `ClientDisconnect` where its sender has left."""
        while not self._whole:
            left = self._deadline - time.monotonic()
            if left <= 0:  # chunks that are there already are had without waiting
                raise TimeoutError
            async with asyncio.timeout(min(self._idle_seconds, left)):
                message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            self._whole = not message.get("more_body", False)
            yield message.get("body", b"")

    async def drain(self) -> None:
        """Read a little of what is left, and throw it away."""
        left = DRAINED
        with suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(DRAIN_SECONDS):
                async for chunk in self.chunks():
                    left -= len(chunk)
                    if left < 0:
                        return
