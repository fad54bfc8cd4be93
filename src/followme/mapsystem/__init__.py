"""The LISP map server and map resolver: who is where, who may say so, and who is told.

``MapServer`` takes datagrams and time, and gives datagrams and events; it knows no socket and no clock.
``serve`` puts it on UDP, with its store, and with processes beside it that answer look-ups.
"""

from .events import Damped, Event, Gone, Moved, Registered, Subscribed, Unsubscribed
from .outbox import Datagram, Outcome
from .server import MapServer, Settings
from .sites import Reply, Site, SitePrefix

__all__ = [
    "Damped",
    "Datagram",
    "Event",
    "Gone",
    "MapServer",
    "Moved",
    "Outcome",
    "Registered",
    "Reply",
    "Settings",
    "Site",
    "SitePrefix",
    "Subscribed",
    "Unsubscribed",
]
