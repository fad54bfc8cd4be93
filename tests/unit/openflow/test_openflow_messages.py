"""Messages by their bytes (OpenFlow 1.3.5, 7.2 to 7.5)."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from followme.openflow import (
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
    set_eth_dst,
    set_ipv4_dst,
)
from followme.openflow import constants as of

MAC = bytes.fromhex("525400000001")
PORT = Port(1, MAC, "eth1", state=of.OFPPS_LIVE, curr_speed=10_000_000)
PORT_BYTES = (
    "00000001 00000000 525400000001 0000 65746831 000000000000000000000000"
    "00000000 00000004 00000000 00000000 00000000 00000000 00989680 00000000"
)
MATCH_PORT_3 = "0001 000c 80000004 00000003 00000000"
TUNNEL_ID = bytes.fromhex("80004c08 0000000000000001")
OUTPUT_4 = "0000 0010 00000004 ffff 000000000000"

DESC_FIELDS = [(b"a", 256), (b"b", 256), (b"c", 256), (b"d", 32), (b"e", 256)]

EXAMPLES: list[tuple[Message, str]] = [
    (Hello(), "04 00 0010 00000007 0001 0008 00000010"),
    (Hello(4, None), "04 00 0008 00000007"),
    (Hello(1, None), "01 00 0008 00000007"),
    (Hello(6, (1, 4, 6)), "06 00 0010 00000007 0001 0008 00000052"),
    (Hello(4, (4, 33)), "04 00 0018 00000007 0001 000c 00000010 00000002 00000000"),
    (ErrorMsg(of.OFPET_BAD_MATCH, of.OFPBMC_BAD_PREREQ, b"x"), "04 01 000d 00000007 0004 0009 78"),
    (EchoRequest(b"abc"), "04 02 000b 00000007 616263"),
    (EchoReply(b""), "04 03 0008 00000007"),
    (FeaturesRequest(), "04 05 0008 00000007"),
    (
        FeaturesReply(0x1122334455667788, 256, 254, 0, 0x4F),
        "04 06 0020 00000007 1122334455667788 00000100 fe 00 0000 0000004f 00000000",
    ),
    (GetConfigRequest(), "04 07 0008 00000007"),
    (GetConfigReply(1, 128), "04 08 000c 00000007 0001 0080"),
    (SetConfig(), "04 09 000c 00000007 0000 ffff"),
    (
        PacketIn(of.OFP_NO_BUFFER, 60, of.OFPR_NO_MATCH, 2, 9, Match(in_port=3), b"frame"),
        f"04 0a 002f 00000007 ffffffff 003c 00 02 0000000000000009 {MATCH_PORT_3} 0000 6672616d65",
    ),
    (
        FlowRemoved(Match(in_port=3), 1, 2, of.OFPRR_DELETE, 4, 5, 6, 7, 8, 9, 10),
        "04 0b 0040 00000007 0000000000000001 0002 02 04 00000005 00000006 0007 0008"
        f"0000000000000009 000000000000000a {MATCH_PORT_3}",
    ),
    (PortStatus(of.OFPPR_MODIFY, PORT), f"04 0c 0050 00000007 02 00000000000000 {PORT_BYTES}"),
    (
        PacketOut(b"frame", (Output(4),), in_port=1),
        f"04 0d 002d 00000007 ffffffff 00000001 0010 000000000000 {OUTPUT_4} 6672616d65",
    ),
    (
        FlowMod(Match(in_port=3), (ApplyActions((Output(4),)),), cookie=1, idle_timeout=10, flags=1),
        "04 0e 0058 00000007 0000000000000001 0000000000000000 00 00 000a 0000 8000 ffffffff"
        f"ffffffff ffffffff 0001 0000 {MATCH_PORT_3} 0004 0018 00000000 {OUTPUT_4}",
    ),
    (
        GroupMod(of.OFPGC_ADD, 5, of.OFPGT_SELECT, (Bucket((Output(4),), weight=1), Bucket(weight=2))),
        f"04 0f 0040 00000007 0000 01 00 00000005 0020 0001 ffffffff ffffffff 00000000 {OUTPUT_4}"
        "0010 0002 ffffffff ffffffff 00000000",
    ),
    (MultipartRequest(of.OFPMP_PORT_DESC), "04 12 0010 00000007 000d 0000 00000000"),
    (
        MultipartRequest(of.OFPMP_FLOW, FlowStatsRequest(Match(in_port=3), cookie=1, cookie_mask=2)),
        "04 12 0040 00000007 0001 0000 00000000 ff 000000 ffffffff ffffffff 00000000"
        f"0000000000000001 0000000000000002 {MATCH_PORT_3}",
    ),
    (
        MultipartReply(of.OFPMP_PORT_DESC, (PORT,), of.OFPMPF_REPLY_MORE),
        f"04 13 0050 00000007 000d 0001 00000000 {PORT_BYTES}",
    ),
    (
        MultipartReply(of.OFPMP_FLOW, (FlowStats(2, Match(in_port=3), (GotoTable(3),), cookie=7, byte_count=8),)),
        "04 13 0058 00000007 0001 0000 00000000 0048 02 00 00000000 00000000 8000 0000 0000 0000 00000000"
        f"0000000000000007 0000000000000000 0000000000000008 {MATCH_PORT_3} 0001 0008 03 000000",
    ),
    (
        MultipartReply(of.OFPMP_AGGREGATE, (AggregateStats(1, 2, 3),)),
        "04 13 0028 00000007 0002 0000 00000000 0000000000000001 0000000000000002 00000003 00000000",
    ),
    (
        MultipartReply(of.OFPMP_TABLE, (TableStats(1, 2, 3, 4),)),
        "04 13 0028 00000007 0003 0000 00000000 01 000000 00000002 0000000000000003 0000000000000004",
    ),
    (
        MultipartRequest(of.OFPMP_PORT_STATS, PortStatsRequest(3)),
        "04 12 0018 00000007 0004 0000 00000000 00000003 00000000",
    ),
    (
        MultipartReply(of.OFPMP_PORT_STATS, (PortStats(3, rx_bytes=5, tx_bytes=6, collisions=7, duration_sec=8),)),
        "04 13 0080 00000007 0004 0000 00000000 00000003 00000000 0000000000000000 0000000000000000"
        f"0000000000000005 0000000000000006 {'0000000000000000' * 7} 0000000000000007 00000008 00000000",
    ),
    (
        MultipartReply(of.OFPMP_DESC, (Desc("a", "b", "c", "d", "e"),)),
        "04 13 0430 00000007 0000 0000 00000000"
        + "".join((letter.ljust(size, b"\0")).hex() for letter, size in DESC_FIELDS),
    ),
    (MultipartReply(of.OFPMP_GROUP, raw=b"\1\2"), "04 13 0012 00000007 0006 0000 00000000 0102"),
    (BarrierRequest(), "04 14 0008 00000007"),
    (BarrierReply(), "04 15 0008 00000007"),
    (RoleRequest(of.OFPCR_ROLE_MASTER, 5), "04 18 0018 00000007 00000002 00000000 0000000000000005"),
    (RoleReply(of.OFPCR_ROLE_SLAVE, 5), "04 19 0018 00000007 00000003 00000000 0000000000000005"),
    (Unknown(of.OFPT_METER_MOD, b"\1\2"), "04 1d 000a 00000007 0102"),
    (Unknown(200, b""), "04 c8 0008 00000007"),
]


@pytest.mark.parametrize(("message", "text"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_each_message_both_ways(message: Message, text: str) -> None:
    assert message.pack(7).hex() == bytes.fromhex(text).hex()
    assert parse(bytes.fromhex(text)) == (7, message)


def test_a_memoryview_can_be_parsed() -> None:
    packed = b"before" + EchoRequest(b"abc").pack(7)
    assert parse(memoryview(packed)[6:]) == (7, EchoRequest(b"abc"))


@pytest.mark.parametrize(
    ("action", "text"),
    [
        (Output(of.OFPP_CONTROLLER, 128), "0000 0010 fffffffd 0080 000000000000"),
        (Group(5), "0016 0008 00000005"),
        (set_eth_dst(MAC), "0019 0010 80000606 525400000001 0000"),
        (set_ipv4_dst(IPv4Address("10.0.0.1")), "0019 0010 80001804 0a000001 00000000"),
        (SetField("udp_dst", 53), "0019 0010 80002002 0035 000000000000"),
        (RawAction(of.OFPAT_DEC_NW_TTL, bytes(4)), "0018 0008 00000000"),
        (RawAction(of.OFPAT_SET_FIELD, TUNNEL_ID), f"0019 0010 {TUNNEL_ID.hex()}"),
    ],
)
def test_each_action_both_ways(action: Output | Group | SetField | RawAction, text: str) -> None:
    assert action.pack() == bytes.fromhex(text)
    packed = PacketOut(b"", (action,)).pack(1)
    assert packed[24:] == bytes.fromhex(text)
    assert parse(packed) == (1, PacketOut(b"", (action,)))


@pytest.mark.parametrize(
    ("instruction", "text"),
    [
        (WriteActions((Group(5),)), "0003 0010 00000000 0016 0008 00000005"),
        (ClearActions(), "0005 0008 00000000"),
        (GotoTable(3), "0001 0008 03 000000"),
        (WriteMetadata(5, 15), "0002 0018 00000000 0000000000000005 000000000000000f"),
        (RawInstruction(of.OFPIT_METER, bytes.fromhex("00000009")), "0006 0008 00000009"),
    ],
)
def test_each_instruction_both_ways(
    instruction: WriteActions | ClearActions | GotoTable | WriteMetadata | RawInstruction, text: str
) -> None:
    packed = FlowMod(instructions=(instruction,)).pack(1)
    assert packed[56:] == bytes.fromhex(text)
    assert parse(packed) == (1, FlowMod(instructions=(instruction,)))


def test_a_deletion_is_not_narrowed_to_a_port_or_a_group_by_default() -> None:
    packed = FlowMod(command=of.OFPFC_DELETE, table_id=of.OFPTT_ALL).pack(1)
    assert packed[36:44] == b"\xff" * 8


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "0 bytes where at least 8"),
        ("04 02 0008 000000", "7 bytes where at least 8"),
        ("04 02 0007 00000001", "length 7 is less than that of the header"),
        ("04 02 0009 00000001", "length 9 of a message of 8 bytes"),
        ("04 02 0008 00000001 00", "length 8 of a message of 9 bytes"),
        ("01 02 0008 00000001", "version 0x01 is not 0x04"),
        ("04 05 0009 00000001 00", "9 bytes where 8 belong"),
        ("04 06 0008 00000001", "8 bytes where 32 belong"),
        ("04 00 000c 00000001 0001 0003", "hello element length 3"),
        ("04 00 000a 00000001 0001", "hello element is cut off"),
        ("04 00 000e 00000001 0001 0006 0000", "not made of 32-bit words"),
        ("04 0a 0020 00000001" + "00" * 24, "32 bytes where at least 34 belong"),
        ("04 0a 0029 00000001" + "00" * 16 + MATCH_PORT_3 + "00", "2 bytes of padding before the packet"),
        ("04 0d 0018 00000001 ffffffff 00000001 0010 000000000000", "actions_len 16 reaches past the end"),
        ("04 0d 0020 00000001 ffffffff 00000001 0008 000000000000 0000000000000000", "action length 0"),
        ("04 0d 0024 00000001 ffffffff 00000001 000c 000000000000 0063000c" + "00" * 8, "action length 12"),
        ("04 0d 0020 00000001 ffffffff 00000001 0008 000000000000 0000000800000000", "type 0 cannot be 8 bytes"),
        ("04 0d 0020 00000001 ffffffff 00000001 0008 000000000000 0019000880000606", "reaches past its action"),
        ("04 12 0010 00000001 0001 0000 00000000", "16 bytes where at least 56 belong"),
        ("04 13 0011 00000001 000d 0000 00000000 00", "entries of 64 bytes"),
        ("04 13 0048 00000001 0001 0000 00000000 0000" + "00" * 54, "flow entry length 0"),
        (f"04 13 0050 00000001 0001 0000 00000000 0048 {'00' * 46} {MATCH_PORT_3}", "flow entry length 72"),
        ("04 0f 0020 00000001 0000 00 00 00000001 0008" + "00" * 14, "bucket length 8"),
    ],
)
def test_a_malformed_message_is_refused(text: str, problem: str) -> None:
    with pytest.raises(OpenFlowError, match=problem):
        parse(bytes.fromhex(text))


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (FlowMod(priority=0x10000), "OFPT_FLOW_MOD: cannot be packed"),
        (PacketOut(b"", (Output(-1),)), "OFPT_PACKET_OUT: cannot be packed"),
        (PacketOut(bytes(70_000), ()), "OFPT_PACKET_OUT: cannot be packed"),
        (EchoRequest(bytes(70_000)), "OFPT_ECHO_REQUEST: cannot be packed"),
        (FlowMod(Match(ip_proto=6)), "OFPT_FLOW_MOD: cannot be packed: ip_proto needs"),
        (PacketOut(b"", (SetField("in_port", 1),)), "set-field"),
        (PacketOut(b"", (SetField("eth_dst", b"\1"),)), "6 bytes"),
        (PacketOut(b"", (SetField("udp_dst", b"53"),)), "needs a number"),
        (PortStatus(0, Port(1, MAC, "a name of 16 byt")), "does not fit 15 bytes"),
        (PortStatus(0, Port(1, b"", "eth1")), "6 bytes"),
        (Hello(1, (1,)), "bitmap belongs to version 4"),
        (Hello(300, None), "more than one byte"),
    ],
)
def test_what_does_not_fit_the_wire_is_refused(message: Message, problem: str) -> None:
    with pytest.raises(OpenFlowError, match=problem):
        message.pack(1)


def test_a_hello_of_an_old_version_may_hold_anything() -> None:
    assert parse(bytes.fromhex("01 00 000b 00000001 ffffff")) == (1, Hello(1, None))


def test_unknown_hello_elements_are_skipped() -> None:
    text = "05 00 0018 00000001 0009 0005 ff 000000 0001 0008 00000030"
    assert parse(bytes.fromhex(text)) == (1, Hello(5, (4, 5)))


def test_a_name_without_a_nul_is_read() -> None:
    packed = bytearray(PortStatus(0, PORT).pack(1))
    packed[32:48] = b"0123456789abcdef"
    _, message = parse(bytes(packed))
    assert isinstance(message, PortStatus)
    assert message.port.name == "0123456789abcdef"


def test_a_reply_gives_what_its_type_has_and_nothing_else() -> None:
    reply = MultipartReply(of.OFPMP_PORT_DESC, (PORT,))
    assert reply.ports == (PORT,)
    for other in ("flows", "tables", "desc", "aggregate", "port_stats"):
        with pytest.raises(OpenFlowError, match="multipart type 13"):
            getattr(reply, other)
    assert MultipartReply(of.OFPMP_FLOW, ()).flows == ()
    assert MultipartReply(of.OFPMP_PORT_STATS, (PortStats(3),)).port_stats == (PortStats(3),)
    assert MultipartReply(of.OFPMP_TABLE, (TableStats(1, 2, 3, 4),)).tables == (TableStats(1, 2, 3, 4),)
    assert MultipartReply(of.OFPMP_DESC, (Desc("me"),)).desc.mfr_desc == "me"
    assert MultipartReply(of.OFPMP_AGGREGATE, (AggregateStats(1, 2, 3),)).aggregate.flow_count == 3


def test_errors_have_names() -> None:
    assert ErrorMsg(of.OFPET_BAD_MATCH, of.OFPBMC_BAD_PREREQ).name == "OFPET_BAD_MATCH/OFPBMC_BAD_PREREQ"
    assert ErrorMsg(77, 1).name == "error type 77/code 1"
