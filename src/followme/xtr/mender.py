"""What the kernel has lost of ours is made again: a line in the log for each loss, and one when all is back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

PAUSE_S = 0.1
"""Before it is mended: a device that goes down and comes up again is one loss."""
RETRY_S = 1.0


class Mender:
    """``repair`` makes all again and says how many routes it has set; where it fails, whyever, it is called again
    after a second."""

    def __init__(self, repair: Callable[[], Awaitable[int]]) -> None:
        self._repair = repair
        self._lost: dict[str, str] = {}
        self._mending: asyncio.Task[None] | None = None
        self._mended = float("-inf")

    @property
    def busy(self) -> bool:
        """Whether something is lost and not mended yet."""
        return self._mending is not None

    def lost(self, what: str, how: str) -> None:
        """To be mended, and logged, ``PAUSE_S`` from now; of several losses of ``what`` the last counts."""
        self._lost[what] = how
        if self._mending is None:
            self._mending = asyncio.ensure_future(self._mend())

    async def close(self) -> None:
        """What is lost stays lost."""
        if self._mending is not None:
            self._mending.cancel()
            await asyncio.gather(self._mending, return_exceptions=True)

    async def _mend(self) -> None:
        said, known = "", set[str]()
        try:
            while self._lost:
                # Whoever takes away what was just made again must not keep us busy.
                await asyncio.sleep(max(PAUSE_S, self._mended + RETRY_S - time.monotonic()))
                lost, self._lost = self._lost, {}
                texts = [f"{what} {how}" for what, how in lost.items()]
                for text in texts:
                    if text not in known:
                        log.error("%s; what is lost is set again", text)
                known.update(texts)
                try:
                    routes = await self._repair()
                except Exception as error:  # what is lost must not be forgotten
                    self._lost = {**lost, **self._lost}
                    if (text := str(error) or repr(error)) != said:
                        said = text
                        log.error("not mended yet: %s", " ".join(said.split()))
                    await asyncio.sleep(RETRY_S)
                else:
                    said = ""
                    known.clear()
                    self._mended = time.monotonic()
                    log.warning("mended (%s): %d routes were set again", ", ".join(lost), routes)
        finally:
            self._mending = None
