"""What domains ask of each other (orders), and what they answer. ``codec`` makes octets of them.

================================  ==========================================  ==============================
order                             from -> to                                  answer
================================  ==========================================  ==============================
Prepare                           where the node is -> home                   Accepted, Refused
Reserve                           home -> where it shall be                   Reserved, Refused
Update                            home -> all holders; foreign -> peers       Held, Refused
Ready, Denied                     home -> who prepared or attached            Accepted, Refused
Flipped, Released, Aborted        who prepared -> home                        Accepted, Refused
Attach                            where the node shows up -> home             Accepted, Refused
Left                              home -> where the node is                   Accepted, Refused
Told                              foreign -> home                             Accepted
Holds                             who was told by another -> home             Accepted, Refused
Quiet                             a place's owner -> home                     Accepted, Refused
================================  ==========================================  ==============================

Every order may be lost, doubled, late or overtaken: it is repeated until it is answered, and a second or late
copy changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping as Mapped
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from followme.domain import Mac

from .nouns import Card, Mapping, Place


@dataclass(frozen=True, slots=True)
class Prepare:
    """The machine shall move to ``network``. ``version``: of the mapping that the sender holds; a copy that comes
    after the node has moved is thus out of date."""

    identifier: IPv4Address
    network: str
    migration: str
    version: int


@dataclass(frozen=True, slots=True)
class Reserve:
    """Give a locator in ``network``; the same one for the same identifier and version."""

    card: Card
    network: str
    version: int

    @property
    def identifier(self) -> IPv4Address:
        return self.card.identifier


@dataclass(frozen=True, slots=True)
class Update:
    """Hold this. ``networks`` are those of the receiver that hold it as correspondents, besides those that did.

    ``settled``: nobody holds the receiver's places that the mapping does not list any more, so that their locators
    are free. ``told`` are networks that know where the node is, for the domain that has it.
    """

    mapping: Mapping
    networks: tuple[str, ...] = ()
    settled: bool = False
    told: tuple[str, ...] = ()

    @property
    def identifier(self) -> IPv4Address:
        return self.mapping.card.identifier


@dataclass(frozen=True, slots=True)
class Ready:
    """All holders have confirmed the version with ``arriving``: the node may go."""

    identifier: IPv4Address
    migration: str
    version: int


@dataclass(frozen=True, slots=True)
class Denied:
    """It will not happen. For an attachment ``migration`` is ``"attach "`` and its claim."""

    identifier: IPv4Address
    migration: str
    reason: str


@dataclass(frozen=True, slots=True)
class Flipped:
    """The machine stops at the source: its packets belong to the target."""

    identifier: IPv4Address
    migration: str


@dataclass(frozen=True, slots=True)
class Released:
    """The source has nothing more to send on."""

    identifier: IPv4Address
    migration: str


@dataclass(frozen=True, slots=True)
class Aborted:
    """The machine stays at the source, or is back there."""

    identifier: IPv4Address
    migration: str


@dataclass(frozen=True, slots=True)
class Attach:
    """The node is in ``network``. ``claim`` rises with each order of its sender."""

    identifier: IPv4Address
    mac: Mac
    network: str
    claim: int


@dataclass(frozen=True, slots=True)
class Left:
    """The node is said to be elsewhere. Refused if it still answers in a network of the receiver."""

    identifier: IPv4Address


@dataclass(frozen=True, slots=True)
class Told:
    """Networks that the sender has told since its last answer to home, with the version that each confirmed
    (0: not yet)."""

    identifier: IPv4Address
    told: Mapped[str, int]


@dataclass(frozen=True, slots=True)
class Holds:
    """Networks of the sender that another than home has told, with the version that they hold; 0: not any more,
    for home had not answered in time. ``mapping`` is what they were told: home sees that it has made it."""

    mapping: Mapping
    held: Mapped[str, int]

    @property
    def identifier(self) -> IPv4Address:
        return self.mapping.card.identifier


@dataclass(frozen=True, slots=True)
class Quiet:
    """No packet uses this old place of the sender's any more."""

    identifier: IPv4Address
    place: Place


@dataclass(frozen=True, slots=True)
class Accepted:
    """``version``: home's counter; what the order asked for is in a mapping of this version or a higher one."""

    version: int = 0


@dataclass(frozen=True, slots=True)
class Refused:
    """``again``: not now; the sender repeats it."""

    reason: str
    again: bool = False


@dataclass(frozen=True, slots=True)
class Reserved:
    locator: IPv4Address


@dataclass(frozen=True, slots=True)
class Held:
    """The version that the sender holds now, and whom it has told (network: version that it confirmed, or 0)."""

    version: int
    told: Mapped[str, int] = field(default_factory=dict)


Order = (
    Prepare | Reserve | Update | Ready | Denied | Flipped | Released | Aborted | Attach | Left | Told | Holds
    | Quiet
)  # fmt: skip
Answer = Accepted | Refused | Reserved | Held
