"""Why a switch did not do what it was asked for."""

from __future__ import annotations


class SwitchError(Exception):
    """A switch cannot do what it was asked for; names the network and the datapath."""


class DatapathGone(SwitchError):
    """It dropped its connection, or did not confirm in time."""


class NotMaster(SwitchError):
    """This controller is a standby, or was deposed: it can neither write rules nor wait for them."""


class RuleRefused(SwitchError):
    """It answered a flow-mod with an error (a full table, a field that it cannot rewrite)."""


class Stale(SwitchError):
    """It has seen a newer master than the one that asked to be it."""


class Absurd(SwitchError):
    """It has seen a master of a generation that no controller of ours comes to."""
