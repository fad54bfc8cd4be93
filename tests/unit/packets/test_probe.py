"""The path monitor's probe counts only if the run's secret made it."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from followme.packets import PacketError
from followme.packets.probe import PROBE_SIZE, Probe, pack_probe, parse_probe, probe_at

KEY = b"the secret of this run"
PROBE = probe_at(3, 2**32 - 1, 17, 12.5)


def test_a_probe_reads_as_it_was_written() -> None:
    packed = pack_probe(PROBE, KEY)
    assert len(packed) == PROBE_SIZE
    assert parse_probe(packed, KEY) == Probe(3, 2**32 - 1, 17, 12_500_000_000)
    assert parse_probe(packed, KEY).sent_s == 12.5


def test_its_tag_is_hmac_sha_256_cut_to_128_bits() -> None:
    packed = pack_probe(PROBE, KEY)
    assert packed[32:] == hmac.new(KEY, packed[:32], hashlib.sha256).digest()[:16]


@pytest.mark.parametrize("at", range(PROBE_SIZE))
def test_no_byte_can_be_changed(at: int) -> None:
    packed = bytearray(pack_probe(PROBE, KEY))
    packed[at] ^= 1
    with pytest.raises(PacketError, match="HMAC" if at > 4 else "not a path probe"):
        parse_probe(bytes(packed), KEY)


def test_another_run_and_another_size_are_refused() -> None:
    packed = pack_probe(PROBE, KEY)
    with pytest.raises(PacketError, match="HMAC"):
        parse_probe(packed, KEY[::-1])
    for size in (b"", packed[:-1], packed + b"\0"):
        with pytest.raises(PacketError, match="it takes 48"):
            parse_probe(size, KEY)


def test_short_keys_and_large_fields_are_refused() -> None:
    with pytest.raises(PacketError, match="key of 15 bytes"):
        pack_probe(PROBE, bytes(15))
    with pytest.raises(PacketError, match="32 bits"):
        pack_probe(PROBE._replace(source=2**32), KEY)
    with pytest.raises(PacketError, match="64 bits"):
        pack_probe(PROBE._replace(sent_ns=-1), KEY)
