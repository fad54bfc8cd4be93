"""How long users stay in one place, learned from their handoffs."""

from __future__ import annotations

MEMORY = 50
"""Stays of one user that count: of a longer history the newest ones do, as habits change."""


class Residence:
    """The mean stay of each user in one network; memory is bounded by the users that are not forgotten.

    Times are seconds of one clock, the caller's; one that runs back counts as a stay of 0.
    """

    def __init__(self) -> None:
        self._since: dict[str, tuple[str, float]] = {}
        self._means: dict[str, tuple[float, int]] = {}

    def seen(self, user: str, network: str, at: float) -> None:
        """The user is at ``network``; a handoff, if it was elsewhere before, ends a stay there."""
        where, since = self._since.get(user, (network, at))
        if where == network:
            self._since.setdefault(user, (network, at))
            return
        self._since[user] = (network, at)
        mean, count = self._means.get(user, (0.0, 0))
        count = min(count + 1, MEMORY)
        # The plain mean at first; from then on one of MEMORY's weight.
        self._means[user] = (mean + (max(0.0, at - since) - mean) / count, count)

    def of(self, user: str) -> tuple[float | None, int]:
        """(mean stay in seconds, how many stays it is of); ``None`` and 0 of a user that has not moved yet."""
        return self._means.get(user, (None, 0))

    def forget(self, user: str) -> None:
        self._since.pop(user, None)
        self._means.pop(user, None)
