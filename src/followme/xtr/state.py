"""What a tunnel router must know again after a restart: its nonce, who was here, and what was being carried."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from followme.lisp import EidPrefix
from followme.xtr.errors import DataPlaneError

from .outputs import IPAddress
from .residents import Resident

NONCE_BLOCK = 1 << 20
REQUEST_BLOCK = 1 << 41
"""Nonces of Map-Requests for some four minutes."""
MAX_BYTES = 16 << 20
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Arm:
    """A machine that is being carried to the site behind ``rloc``."""

    eid: EidPrefix
    mac: bytes
    rloc: IPAddress


@dataclass(frozen=True, slots=True)
class State:
    """``nonce`` is above all nonces of Map-Registers that were ever sent, ``request_nonce`` of Map-Requests.
    ``departed``: EIDs that a map server has said to be elsewhere, with the nonce that it said it with."""

    nonce: int = 0
    residents: tuple[Resident, ...] = ()
    arms: tuple[Arm, ...] = ()
    guarded: tuple[EidPrefix, ...] = ()
    request_nonce: int = 0
    departed: tuple[tuple[EidPrefix, int], ...] = ()


class StateFile:
    """A JSON file in ``directory``, replaced whole, so that a crash leaves the old one or the new one."""

    def __init__(self, directory: Path, site: str) -> None:
        self.path = directory / f"xtr-{site}.json"
        self._lock: int | None = None

    def lock(self) -> None:
        """Until ``unlock``, or the end of this process, nobody else can; ``DataPlaneError`` if somebody has."""
        name = self.path.with_suffix(".lock")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.unlock()
            raise DataPlaneError(f"{name}: held by another tunnel router of this site; it runs already") from None
        except OSError as error:
            self.unlock()
            raise DataPlaneError(f"{name}: cannot be locked: {error.strerror}") from None

    def unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def load(self, iid: int) -> State:
        """The state, an empty one if there is no file; ``DataPlaneError`` if it cannot be read or is damaged."""
        try:
            with self.path.open("rb") as stream:
                data = json.loads(stream.read(MAX_BYTES))
            if data["version"] != _VERSION:
                raise ValueError(f"version {data['version']}, not {_VERSION}")
            residents = tuple(
                Resident(_eid(item, iid), _mac(item), bool(item["pinned"]), bool(item["expected"]))
                for item in data["residents"]
            )
            arms = tuple(Arm(_eid(item, iid), _mac(item), ip_address(item["rloc"])) for item in data["arms"])
            guarded = tuple(EidPrefix.of(ip_address(eid), iid) for eid in data["guarded"])
            departed = tuple(
                (EidPrefix.of(ip_network(item["eid"]), iid), _nonce(item["nonce"]))
                for item in data.get("departed", [])
            )
            requests = _nonce(data.get("request_nonce", 0))
            return State(_nonce(data["nonce"]), residents, arms, guarded, requests, departed)
        except FileNotFoundError:
            return State()
        except OSError as error:
            raise DataPlaneError(f"{self.path}: cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataPlaneError(
                f"{self.path}: damaged ({error!r}); move it away to start without what it knew"
            ) from None

    def save(self, state: State) -> None:
        """On the disk when this returns; ``DataPlaneError`` if it cannot be."""
        text = json.dumps({
            "version": _VERSION,
            "nonce": state.nonce,
            "request_nonce": state.request_nonce,
            "residents": [
                {"eid": str(one.eid.network.network_address), "mac": one.mac.hex(), "pinned": one.pinned,
                 "expected": one.expected}
                for one in state.residents
            ],
            "arms": [
                {"eid": str(one.eid.network.network_address), "mac": one.mac.hex(), "rloc": str(one.rloc)}
                for one in state.arms
            ],
            "guarded": [str(eid.network.network_address) for eid in state.guarded],
            "departed": [{"eid": str(eid.network), "nonce": nonce} for eid, nonce in state.departed],
        })  # fmt: skip
        draft = self.path.with_suffix(".draft")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("w") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            draft.replace(self.path)
        except OSError as error:
            raise DataPlaneError(f"{self.path}: cannot be written: {error.strerror}") from None


def _eid(item: dict[str, Any], iid: int) -> EidPrefix:
    return EidPrefix.of(ip_address(item["eid"]), iid)


def _nonce(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value < 1 << 64:
        raise ValueError(f"{value!r:.40} is no nonce")
    return value


def _mac(item: dict[str, Any]) -> bytes:
    mac = bytes.fromhex(item["mac"])
    if len(mac) != 6:
        raise ValueError(f"{item['mac']!r} is no MAC address")
    return mac
