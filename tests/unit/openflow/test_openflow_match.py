"""Matches by their bytes (OpenFlow 1.3.5, 7.2.3)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from followme.openflow import FlowMod, Match, OpenFlowError, parse

A = IPv4Address("10.1.0.5")
ETH_TYPE_IPV4 = "80000a02 0800"
ETH_TYPE_ARP = "80000a02 0806"


def on_the_wire(*tlvs: str) -> bytes:
    """The ``ofp_match`` with these TLVs."""
    body = bytes.fromhex("".join(tlvs))
    length = 4 + len(body)
    return b"\0\1" + length.to_bytes(2, "big") + body + bytes(-length % 8)


def received(match: bytes) -> Match:
    """What is read from a FLOW_MOD whose match has these bytes."""
    packed = FlowMod().pack(1)[:48] + match
    _, message = parse(packed[:2] + len(packed).to_bytes(2, "big") + packed[4:])
    assert isinstance(message, FlowMod)
    return message.match


def test_match_of_everything_is_padded_to_8_bytes() -> None:
    assert Match().pack() == bytes.fromhex("0001 0004 0000 0000")


def test_match_of_a_port() -> None:
    assert Match(in_port=3).pack() == bytes.fromhex("0001 000c 80000004 00000003 00000000")


def test_fields_are_packed_in_the_order_that_prerequisites_need() -> None:
    match = Match(udp_dst=53, ip_proto=17, ipv4_dst=A, eth_type=0x0800, in_port=1)
    assert match.pack() == on_the_wire(
        "80000004 00000001", ETH_TYPE_IPV4, "80001401 11", "80001804 0a010005", "80002002 0035"
    )


@pytest.mark.parametrize(
    ("match", "tlvs"),
    [
        (Match(metadata=5), ["80000408 0000000000000005"]),
        (Match(eth_dst=b"\x52\x54\0\0\0\1"), ["80000606 525400000001"]),
        (Match(eth_src=b"\x52\x54\0\0\0\1"), ["80000806 525400000001"]),
        (Match(vlan_vid=0x1005), ["80000c02 1005"]),
        (Match(eth_type=0x0800, ipv4_src=A), [ETH_TYPE_IPV4, "80001604 0a010005"]),
        (Match(eth_type=0x0800, ip_proto=6, tcp_src=1), [ETH_TYPE_IPV4, "80001401 06", "80001a02 0001"]),
        (Match(eth_type=0x0800, ip_proto=6, tcp_dst=1), [ETH_TYPE_IPV4, "80001401 06", "80001c02 0001"]),
        (Match(eth_type=0x0800, ip_proto=17, udp_src=1), [ETH_TYPE_IPV4, "80001401 11", "80001e02 0001"]),
        (Match(eth_type=0x0800, ip_proto=1, icmpv4_type=8), [ETH_TYPE_IPV4, "80001401 01", "80002601 08"]),
        (Match(eth_type=0x0806, arp_op=1), [ETH_TYPE_ARP, "80002a02 0001"]),
        (Match(eth_type=0x0806, arp_spa=A), [ETH_TYPE_ARP, "80002c04 0a010005"]),
        (Match(eth_type=0x0806, arp_tpa=A), [ETH_TYPE_ARP, "80002e04 0a010005"]),
        (
            Match(eth_type=0x0800, ipv4_dst=IPv4Network("10.1.0.0/16")),
            [ETH_TYPE_IPV4, "80001908 0a010000 ffff0000"],
        ),
    ],
)
def test_each_field_both_ways(match: Match, tlvs: list[str]) -> None:
    assert match.pack() == on_the_wire(*tlvs)
    assert received(on_the_wire(*tlvs)) == match


def test_a_prefix_of_32_bits_is_the_address_and_one_of_0_bits_is_nothing() -> None:
    everything = Match(eth_type=0x0800, ipv4_dst=IPv4Network("0.0.0.0/0"))
    assert everything.pack() == Match(eth_type=0x0800).pack()
    one = Match(eth_type=0x0800, ipv4_dst=IPv4Network("10.1.0.5/32"))
    assert one.pack() == Match(eth_type=0x0800, ipv4_dst=A).pack()
    full_mask, no_mask = "80001908 0a010005 ffffffff", "80001908 00000000 00000000"
    assert received(on_the_wire(ETH_TYPE_IPV4, full_mask)) == Match(eth_type=0x0800, ipv4_dst=A)
    assert received(on_the_wire(ETH_TYPE_IPV4, no_mask)) == Match(eth_type=0x0800)


@pytest.mark.parametrize(
    "tlv",
    [
        "80004c08 0000000000000001",  # tunnel_id: a field without a name here
        "00010004 00000007",  # class NXM_1
        "ffff0008 00002320 00000001",  # an experimenter's
        "8000070c 010000000000 010000000000",  # eth_dst under a mask
        "80001908 0a000001 ff0000ff",  # ipv4_dst under a mask that is no prefix
    ],
)
def test_what_has_no_field_here_is_kept_as_it_came(tlv: str) -> None:
    match = received(on_the_wire(ETH_TYPE_IPV4, tlv))
    assert match == Match(eth_type=0x0800, raw=bytes.fromhex(tlv))
    assert match.pack() == on_the_wire(ETH_TYPE_IPV4, tlv)


@pytest.mark.parametrize(
    ("match", "needed"),
    [
        (Match(ipv4_dst=A), "eth_type 0x0800"),
        (Match(ipv4_src=A, eth_type=0x0806), "eth_type 0x0800"),
        (Match(ip_proto=6), "eth_type 0x0800"),
        (Match(eth_type=0x0800, tcp_src=80), "ip_proto 6"),
        (Match(eth_type=0x0800, tcp_dst=80, ip_proto=17), "ip_proto 6"),
        (Match(eth_type=0x0800, udp_src=80), "ip_proto 17"),
        (Match(eth_type=0x0800, udp_dst=80, ip_proto=6), "ip_proto 17"),
        (Match(eth_type=0x86DD, ip_proto=1, icmpv4_type=8), "IPv4"),
        (Match(arp_op=1), "eth_type 0x0806"),
        (Match(arp_spa=A, eth_type=0x0800), "eth_type 0x0806"),
        (Match(arp_tpa=A), "eth_type 0x0806"),
    ],
)
def test_a_missing_prerequisite_is_refused(match: Match, needed: str) -> None:
    with pytest.raises(OpenFlowError, match=needed):
        match.pack()


@pytest.mark.parametrize(
    ("match", "problem"),
    [
        (on_the_wire("80000004 00000001", "80000004 00000002"), "twice"),
        (on_the_wire(ETH_TYPE_IPV4, "80001804 0a010005", "80001908 0a010000 ffff0000"), "twice"),
        (on_the_wire("80000002 0001"), "in_port cannot have 2 bytes"),
        (on_the_wire("80001907 0a010000 ffff00"), "ipv4_dst cannot have 7 bytes"),
        (on_the_wire("80001908 0a010005 ffff0000"), "outside its mask"),
        (on_the_wire("80000004 0000"), "reaches past the end"),
        (on_the_wire("8000"), "cut off"),
        (bytes.fromhex("0000 0004 00000000"), "match type 0"),
        (bytes.fromhex("0001 0003 00000000"), "match length 3"),
        (bytes.fromhex("0001 0010 00000000"), "match length 16"),
    ],
)
def test_a_malformed_match_is_refused(match: bytes, problem: str) -> None:
    with pytest.raises(OpenFlowError, match=problem):
        received(match)


def test_the_error_says_where() -> None:
    with pytest.raises(OpenFlowError) as caught:
        received(on_the_wire("80000408 0000000000000005", "80000002 0001"))
    # 48 bytes before the match, 4 of its header, 12 of the first TLV
    assert caught.value.offset == 64
    assert str(caught.value) == "OFPT_FLOW_MOD at byte 64: in_port cannot have 2 bytes"


def test_a_mac_of_another_length_is_refused() -> None:
    with pytest.raises(OpenFlowError, match="6 bytes, not 5"):
        Match(eth_dst=bytes(5)).pack()
