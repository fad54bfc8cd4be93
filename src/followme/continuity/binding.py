"""What the edge switches must know of one node, as a value: the mapping identifier -> locator in its phases.

===========  ==============================================================================================
phase        fields
===========  ==============================================================================================
settled      ``here``
prepared     ``here`` is the source, ``arriving`` the target; both are armed: what comes back is sent across
switched     ``here`` is the target, ``leaving`` the source, which still sends late packets on
released     ``here`` is the target; ``old`` places are still translated while packets may be under way
===========  ==============================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from followme.domain import Node, Placement


@dataclass(frozen=True, slots=True)
class Binding:
    """A node's mapping. ``told`` are the networks that hold it as correspondents (the papers' list of CCs)."""

    node: Node
    here: Placement
    arriving: Placement | None = None
    leaving: Placement | None = None
    old: tuple[Placement, ...] = ()
    told: frozenset[str] = frozenset()
    telling: frozenset[str] = frozenset()
    """Those of ``told`` whose switches have not confirmed yet: the node may not speak to them so far."""
    seen: bool = True
    """Whether the node has been seen at ``here``; until then its ingress rule reports to the controller."""
    watched: bool = True
    """Whether the home switch reports peers that do not know the locator yet (it may be silenced a while)."""

    @property
    def away(self) -> bool:
        return self.here.network != self.node.home

    def prepare(self, arriving: Placement, told: frozenset[str]) -> Binding:
        return replace(self, arriving=arriving, old=_without(self.old, arriving), told=self.told | told)

    def switch(self) -> Binding:
        """The machine stops at the source: its packets belong to the target from now on."""
        if self.arriving is None:
            raise ValueError(f"{self.node.name} is not prepared to move")
        return replace(self, here=self.arriving, arriving=None, leaving=self.here, seen=False)

    def roll_back(self) -> Binding:
        """Back to the source, whether it was switched or only prepared; idempotent."""
        if self.leaving is not None:
            return replace(self, here=self.leaving, leaving=None, arriving=None,
                           old=_with(self.old, self.here), seen=True)  # fmt: skip
        old = _with(self.old, self.arriving) if self.arriving else self.old
        return replace(self, arriving=None, old=old)

    def release(self) -> Binding:
        """The source has nothing more to send on. At home the node goes by its identifier alone again."""
        old = _with(self.old, self.leaving) if self.leaving else self.old
        here = self.here
        if not self.away and here.locator != self.node.identifier:
            old = _with(old, here)
            here = replace(here, locator=self.node.identifier)
        return replace(self, here=here, leaving=None, old=old)

    def forget(self, place: Placement) -> Binding:
        """No packet with this old locator is under way any more."""
        return replace(self, old=tuple(other for other in self.old if other != place))

    def move(self, here: Placement, told: frozenset[str]) -> Binding:
        """The node went by itself (a user): nothing could be prepared."""
        old = _without(_with(self.old, self.here), here)  # it may be back at a locator that it had
        return replace(self, here=here, leaving=None, arriving=None, old=old, told=self.told | told, seen=True)


def _with(old: tuple[Placement, ...], place: Placement) -> tuple[Placement, ...]:
    return (*_without(old, place), place)


def _without(old: tuple[Placement, ...], place: Placement) -> tuple[Placement, ...]:
    return tuple(other for other in old if other.locator != place.locator)
