"""The codec under any input: nothing but a message or OpenFlowError, and what was packed is read back."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from followme.openflow import (
    Action,
    AggregateStats,
    ApplyActions,
    BarrierReply,
    BarrierRequest,
    Bucket,
    ClearActions,
    Desc,
    EchoReply,
    EchoRequest,
    ErrorMsg,
    FeaturesReply,
    FeaturesRequest,
    FlowMod,
    FlowRemoved,
    FlowStats,
    FlowStatsRequest,
    GetConfigReply,
    GetConfigRequest,
    GotoTable,
    Group,
    GroupMod,
    Hello,
    Instruction,
    Match,
    Message,
    MultipartReply,
    MultipartRequest,
    OpenFlowError,
    Output,
    PacketIn,
    PacketOut,
    Port,
    PortStats,
    PortStatsRequest,
    PortStatus,
    RawAction,
    RawInstruction,
    RoleReply,
    RoleRequest,
    SetConfig,
    SetField,
    TableStats,
    Unknown,
    WriteActions,
    WriteMetadata,
    parse,
)
from followme.openflow import constants as of

u8, u16, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))
macs = st.binary(min_size=6, max_size=6)
octets = st.binary(max_size=40)
addresses = st.builds(IPv4Address, u32)
# A prefix of 0 or 32 bits packs as nothing or as an address: that is tests/unit's.
prefixes = st.builds(
    lambda number, length: IPv4Network((number >> 32 - length << 32 - length, length)), u32, st.integers(1, 31)
)
maybe = st.none() | u16


def names(size: int) -> st.SearchStrategy[str]:
    text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=size)
    return text.filter(lambda name: len(name.encode()) <= size)


@st.composite
def matches(draw: st.DrawFn) -> Match:
    """A match whose prerequisites are met."""
    values: dict[str, object] = {
        "in_port": draw(st.none() | u32),
        "metadata": draw(st.none() | u64),
        "eth_dst": draw(st.none() | macs),
        "eth_src": draw(st.none() | macs),
        "vlan_vid": draw(maybe),
        "raw": draw(st.sampled_from([b"", bytes.fromhex("80004c080000000000000001"), b"\0\1\0\4abcd"])),
    }
    kind = draw(st.sampled_from(["", "arp", "ip", "tcp", "udp", "icmp"]))
    ips = st.none() | addresses | prefixes
    if kind == "arp":
        values |= {"eth_type": 0x0806, "arp_op": draw(maybe), "arp_spa": draw(ips), "arp_tpa": draw(ips)}
    elif kind:
        values |= {"eth_type": 0x0800, "ipv4_src": draw(ips), "ipv4_dst": draw(ips)}
    if kind in ("tcp", "udp"):
        values |= {"ip_proto": {"tcp": 6, "udp": 17}[kind], f"{kind}_src": draw(maybe), f"{kind}_dst": draw(maybe)}
    if kind == "icmp":
        values |= {"ip_proto": 1, "icmpv4_type": draw(st.none() | u8)}
    return Match(**values)  # type: ignore[arg-type]


actions: st.SearchStrategy[Action] = st.one_of(
    st.builds(Output, u32, u16),
    st.builds(Group, u32),
    st.builds(SetField, st.sampled_from(["eth_src", "eth_dst"]), macs),
    st.builds(SetField, st.sampled_from(["ipv4_src", "ipv4_dst", "arp_spa", "arp_tpa"]), addresses),
    st.builds(SetField, st.sampled_from(["tcp_src", "tcp_dst", "udp_src", "udp_dst", "eth_type", "arp_op"]), u16),
    st.builds(SetField, st.sampled_from(["ip_proto", "icmpv4_type"]), u8),
    st.builds(RawAction, st.integers(26, 0xFFFF), st.sampled_from([bytes(4), b"12345678abcd"])),
)
action_lists = st.lists(actions, max_size=4).map(tuple)
instructions: st.SearchStrategy[Instruction] = st.one_of(
    st.builds(ApplyActions, action_lists),
    st.builds(WriteActions, action_lists),
    st.just(ClearActions()),
    st.builds(GotoTable, u8),
    st.builds(WriteMetadata, u64, u64),
    st.builds(RawInstruction, st.integers(6, 0xFFFF), st.sampled_from([bytes(4), b"12345678abcd"])),
)
instruction_lists = st.lists(instructions, max_size=3).map(tuple)
ports = st.builds(Port, u32, macs, names(15), *[u32] * 8)
flow_stats = st.builds(
    FlowStats, u8, matches(), instruction_lists, u16, u64, u32, u32, u16, u16, u16, u64, u64
)
flow_requests = st.builds(FlowStatsRequest, matches(), u8, u32, u32, u64, u64)
hello_versions = st.sets(u8).map(sorted).map(tuple)

messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Hello, st.integers(4, 255), st.none() | hello_versions),
    st.builds(Hello, st.integers(0, 3), st.none()),
    st.builds(ErrorMsg, u16, u16, octets),
    st.builds(EchoRequest, octets),
    st.builds(EchoReply, octets),
    st.builds(FeaturesReply, u64, u32, u8, u8, u32, u32),
    st.builds(GetConfigReply, u16, u16),
    st.builds(SetConfig, u16, u16),
    st.builds(PacketIn, u32, u16, u8, u8, u64, matches(), octets),
    st.builds(PacketOut, octets, action_lists, u32, u32),
    st.builds(
        FlowMod, matches(), instruction_lists, u8, u8, u16, u64, u64, u16, u16, u32, u32, u32, u16
    ),
    st.builds(FlowRemoved, matches(), u64, u16, u8, u8, u32, u32, u16, u16, u64, u64),
    st.builds(
        GroupMod, u16, u32, u8, st.lists(st.builds(Bucket, action_lists, u16, u32, u32), max_size=3).map(tuple)
    ),
    st.builds(PortStatus, u8, ports),
    st.builds(RoleRequest, u32, u64),
    st.builds(RoleReply, u32, u64),
    st.builds(MultipartRequest, st.sampled_from([of.OFPMP_FLOW, of.OFPMP_AGGREGATE]), flow_requests, u16),
    st.builds(MultipartRequest, st.integers(3, 0xFFFF), octets, u16),
    st.builds(
        MultipartReply,
        st.just(of.OFPMP_DESC),
        st.tuples(st.builds(Desc, names(255), names(255), names(255), names(31), names(255))),
        u16,
    ),
    st.builds(MultipartReply, st.just(of.OFPMP_FLOW), st.lists(flow_stats, max_size=3).map(tuple), u16),
    st.builds(
        MultipartReply, st.just(of.OFPMP_AGGREGATE), st.tuples(st.builds(AggregateStats, u64, u64, u32)), u16
    ),
    st.builds(
        MultipartReply,
        st.just(of.OFPMP_TABLE),
        st.lists(st.builds(TableStats, u8, u32, u64, u64), max_size=3).map(tuple),
        u16,
    ),
    st.builds(
        MultipartReply,
        st.just(of.OFPMP_PORT_STATS),
        st.lists(st.builds(PortStats, u32, *[u64] * 12, u32, u32), max_size=3).map(tuple),
        u16,
    ),
    st.builds(MultipartRequest, st.just(of.OFPMP_PORT_STATS), st.builds(PortStatsRequest, u32), u16),
    st.builds(MultipartReply, st.just(of.OFPMP_PORT_DESC), st.lists(ports, max_size=3).map(tuple), u16),
    st.builds(MultipartReply, st.integers(14, 0xFFFF), st.just(()), u16, octets),
    st.builds(Unknown, st.integers(26, 255), octets),
    st.sampled_from([FeaturesRequest(), GetConfigRequest(), BarrierRequest(), BarrierReply()]),
)


@given(messages, u32)
def test_what_is_packed_is_read_back(message: Message, xid: int) -> None:
    assert parse(message.pack(xid)) == (xid, message)


def check_anything(data: bytes) -> None:
    """``parse`` gives a message or OpenFlowError; what it accepts packs to bytes with the same meaning."""
    try:
        xid, message = parse(data)
    except OpenFlowError:
        return
    with suppress(OpenFlowError):  # a switch may report what it would not take: no prerequisite, long names
        assert parse(message.pack(xid)) == (xid, message)


@given(st.binary(max_size=200))
@example(b"")
def test_any_bytes_are_a_message_or_an_openflow_error(data: bytes) -> None:
    check_anything(data)


@given(u8, st.binary(max_size=200), st.sampled_from([4, 4, 4, 1, 6]))
def test_any_body_behind_a_good_header_is_a_message_or_an_openflow_error(
    kind: int, body: bytes, version: int
) -> None:
    check_anything(bytes([version, kind]) + (8 + len(body)).to_bytes(2, "big") + b"\0\0\0\1" + body)


@given(messages, st.data())
def test_a_damaged_message_is_a_message_or_an_openflow_error(message: Message, data: st.DataObject) -> None:
    packed = bytearray(message.pack(1))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(u8)
    check_anything(bytes(packed))


@given(messages, st.data())
def test_a_message_that_is_cut_off_is_refused(message: Message, data: st.DataObject) -> None:
    packed = message.pack(1)
    with pytest.raises(OpenFlowError):
        parse(packed[: data.draw(st.integers(0, len(packed) - 1))])


@given(messages, st.data())
def test_a_message_cut_off_under_a_header_that_says_so_is_a_message_or_an_openflow_error(
    message: Message, data: st.DataObject
) -> None:
    packed = message.pack(1)
    length = data.draw(st.integers(8, len(packed)))
    check_anything(packed[:2] + length.to_bytes(2, "big") + packed[4:length])
