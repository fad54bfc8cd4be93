"""Data headers by octets: RFC 9300, 5.1, and LISP-GPE of RFC 9305, 3."""

from __future__ import annotations

import pytest

from followme.lisp import DataHeader, LispError, NextProtocol, decode_data_header

HEADERS = {
    "none of it": ("00 000000 00000000", DataHeader()),
    "nonce": ("80 abcdef 00000000", DataHeader(nonce=0xABCDEF)),
    "nonce to be echoed": ("a0 abcdef 00000000", DataHeader(nonce=0xABCDEF, echo_nonce=True)),
    "locator status": ("40 000000 80000001", DataHeader(locator_status=0x80000001)),
    "map versions": ("10 123456 00000000", DataHeader(map_versions=(0x123, 0x456))),
    "instance": ("08 000000 00000700", DataHeader(instance_id=7)),
    "instance, nonce, status": (
        "c8 000001 ffffff81",
        DataHeader(nonce=1, locator_status=0x81, instance_id=0xFFFFFF),
    ),
    "keyed": ("01 000000 00000000", DataHeader(key=1)),
    "GPE, IPv4, as Linux sends it": (
        "0c 000001 00000700",
        DataHeader(instance_id=7, next_protocol=NextProtocol.IPV4),
    ),
    "GPE, IPv6": ("04 000002 00000000", DataHeader(next_protocol=NextProtocol.IPV6)),
    "GPE, nonce": ("84 beef03 00000000", DataHeader(nonce=0xBEEF, next_protocol=NextProtocol.ETHERNET)),
    "GPE, map versions": ("14 123404 00000000", DataHeader(map_versions=(0x12, 0x34), next_protocol=4)),
}


@pytest.mark.parametrize("name", HEADERS)
def test_octets_and_header(name: str) -> None:
    text, header = HEADERS[name]
    assert decode_data_header(bytes.fromhex(text)) == header
    assert header.encode().hex(" ", -4) == bytes.fromhex(text).hex(" ", -4)


def test_fields_without_their_flag_are_ignored() -> None:
    assert decode_data_header(bytes.fromhex("00 ffffff ffffffff")) == DataHeader()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("00 000000 000000", "8 octets needed, 7 left"),
        ("90 000000 00000000", "N and V at octet 0: a nonce and map-versions"),
        ("20 000000 00000000", "E at octet 0: an echo of no nonce"),
    ],
)
def test_refused(text: str, said: str) -> None:
    with pytest.raises(LispError, match=said):
        decode_data_header(bytes.fromhex(text))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (DataHeader(nonce=1, map_versions=(1, 1)), "N and V"),
        (DataHeader(echo_nonce=True), "echo of no nonce"),
        (DataHeader(nonce=1 << 24), "Nonce: 16777216 does not fit 24 bits"),
        (DataHeader(nonce=1 << 16, next_protocol=1), "does not fit 16 bits"),
        (DataHeader(map_versions=(4096, 0)), "does not fit 12 bits"),
        (DataHeader(map_versions=(0, 256), next_protocol=1), "does not fit 8 bits"),
        (DataHeader(next_protocol=256), "Next Protocol"),
        (DataHeader(instance_id=1 << 24), "Instance ID"),
        (DataHeader(instance_id=1, locator_status=256), "Locator-Status-Bits: 256 does not fit 8 bits"),
        (DataHeader(locator_status=1 << 32), "Locator-Status-Bits"),
        (DataHeader(key=4), "KK"),
    ],
)
def test_a_field_that_does_not_fit(header: DataHeader, said: str) -> None:
    with pytest.raises(LispError, match=said):
        header.encode()
