"""How often one and the same complaint is logged: peers must not fill the disk."""

from __future__ import annotations

import time

LOG_EVERY_S = 10.0
_KINDS = 256


class Rationed:
    """Few different things are asked about, and they are forgotten in bulk."""

    def __init__(self) -> None:
        self._logged: dict[str, float] = {}

    def seldom(self, what: str) -> bool:
        """Whether to log ``what`` now."""
        now = time.monotonic()
        if now - self._logged.get(what, -LOG_EVERY_S) < LOG_EVERY_S:
            return False
        if len(self._logged) >= _KINDS:
            self._logged = {key: at for key, at in self._logged.items() if now - at < LOG_EVERY_S}
            if len(self._logged) >= _KINDS:
                return False
        self._logged[what] = now
        return True
