"""Our bytes against os-ken's, an OpenFlow implementation that others wrote and many switches met.

What a controller sends is compared byte for byte with what os-ken serializes. What a switch sends is
packed here and read by both, as os-ken cannot serialize it: both must see the same fields.
"""

from __future__ import annotations

from dataclasses import fields
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from os_ken.ofproto import ofproto_parser, ofproto_protocol, ofproto_v1_3
from os_ken.ofproto import ofproto_v1_3_parser as osken

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
    Output,
    PacketIn,
    PacketOut,
    Port,
    PortStats,
    PortStatsRequest,
    PortStatus,
    RawInstruction,
    RoleReply,
    RoleRequest,
    SetConfig,
    SetField,
    TableStats,
    WriteActions,
    WriteMetadata,
    parse,
)
from followme.openflow import constants as of

DATAPATH = ofproto_protocol.ProtocolDesc(version=4)
XID = 0x01020304
MAC_TEXT, MAC = "52:54:00:12:34:56", bytes.fromhex("525400123456")
A, B = IPv4Address("10.1.0.5"), IPv4Address("10.2.0.5")


def osken_bytes(message: Any) -> bytes:
    message.set_xid(XID)
    message.serialize()
    return bytes(message.buf)


def osken_reads(packed: bytes) -> Any:
    version, kind, length, xid = ofproto_parser.header(packed)
    message = ofproto_parser.msg(DATAPATH, version, kind, length, xid, packed)
    assert message is not None, "os-ken could not parse it"
    assert message.xid == XID
    return message


MATCHES: list[tuple[Match, dict[str, Any]]] = [
    (Match(), {}),
    (Match(in_port=3), {"in_port": 3}),
    (Match(in_port=of.OFPP_LOCAL, eth_dst=MAC), {"in_port": of.OFPP_LOCAL, "eth_dst": MAC_TEXT}),
    (Match(eth_type=0x0800, ipv4_dst=A), {"eth_type": 0x0800, "ipv4_dst": str(A)}),
    (
        Match(eth_type=0x0800, ipv4_dst=IPv4Network("10.1.0.0/16"), ipv4_src=IPv4Network("10.0.0.0/8")),
        {"eth_type": 0x0800, "ipv4_dst": ("10.1.0.0", "255.255.0.0"), "ipv4_src": ("10.0.0.0", "255.0.0.0")},
    ),
    (
        Match(in_port=1, eth_src=MAC, eth_type=0x0800, ip_proto=17, udp_src=68, udp_dst=67),
        {"in_port": 1, "eth_src": MAC_TEXT, "eth_type": 0x0800, "ip_proto": 17, "udp_src": 68, "udp_dst": 67},
    ),
    (
        Match(eth_type=0x0800, ip_proto=6, tcp_src=80, tcp_dst=443, ipv4_src=A, metadata=1 << 40),
        {
            "eth_type": 0x0800,
            "ip_proto": 6,
            "tcp_src": 80,
            "tcp_dst": 443,
            "ipv4_src": str(A),
            "metadata": 1 << 40,
        },
    ),
    (
        Match(eth_type=0x0806, arp_op=1, arp_spa=A, arp_tpa=IPv4Network("10.2.0.0/24")),
        {"eth_type": 0x0806, "arp_op": 1, "arp_spa": str(A), "arp_tpa": ("10.2.0.0", "255.255.255.0")},
    ),
    (
        Match(eth_type=0x0800, ip_proto=1, icmpv4_type=8, vlan_vid=0x1005),
        {"eth_type": 0x0800, "ip_proto": 1, "icmpv4_type": 8, "vlan_vid": 0x1005},
    ),
]

ACTIONS = (
    SetField("eth_src", MAC),
    SetField("ipv4_dst", B),
    SetField("ipv4_src", A),
    SetField("udp_dst", 4341),
    SetField("ip_proto", 17),
    Group(9),
    Output(4),
    Output(of.OFPP_CONTROLLER, 128),
)


def osken_actions() -> list[Any]:
    return [
        osken.OFPActionSetField(eth_src=MAC_TEXT),
        osken.OFPActionSetField(ipv4_dst=str(B)),
        osken.OFPActionSetField(ipv4_src=str(A)),
        osken.OFPActionSetField(udp_dst=4341),
        osken.OFPActionSetField(ip_proto=17),
        osken.OFPActionGroup(9),
        osken.OFPActionOutput(4, of.OFPCML_NO_BUFFER),
        osken.OFPActionOutput(of.OFPP_CONTROLLER, 128),
    ]


INSTRUCTIONS = (
    RawInstruction(of.OFPIT_METER, (5).to_bytes(4, "big")),
    ApplyActions(ACTIONS),
    ClearActions(),
    WriteActions((Output(4),)),
    WriteMetadata(1, 255),
    GotoTable(3),
)


def osken_instructions() -> list[Any]:
    return [
        osken.OFPInstructionMeter(5),
        osken.OFPInstructionActions(of.OFPIT_APPLY_ACTIONS, osken_actions()),
        osken.OFPInstructionActions(of.OFPIT_CLEAR_ACTIONS, []),
        osken.OFPInstructionActions(of.OFPIT_WRITE_ACTIONS, [osken.OFPActionOutput(4, 0xFFFF)]),
        osken.OFPInstructionWriteMetadata(1, 255),
        osken.OFPInstructionGotoTable(3),
    ]


FROM_CONTROLLER: list[tuple[Message, Any]] = [
    (Hello(4, None), osken.OFPHello(DATAPATH)),
    (ErrorMsg(1, 2, b"data"), osken.OFPErrorMsg(DATAPATH, 1, 2, b"data")),
    (EchoRequest(b"abc"), osken.OFPEchoRequest(DATAPATH, b"abc")),
    (EchoReply(b"abc"), osken.OFPEchoReply(DATAPATH, b"abc")),
    (FeaturesRequest(), osken.OFPFeaturesRequest(DATAPATH)),
    (GetConfigRequest(), osken.OFPGetConfigRequest(DATAPATH)),
    (SetConfig(of.OFPC_FRAG_DROP, 128), osken.OFPSetConfig(DATAPATH, of.OFPC_FRAG_DROP, 128)),
    (
        PacketOut(b"frame", ACTIONS, in_port=3),
        osken.OFPPacketOut(DATAPATH, of.OFP_NO_BUFFER, 3, osken_actions(), b"frame"),
    ),
    (PacketOut(b"", (), buffer_id=7), osken.OFPPacketOut(DATAPATH, 7, of.OFPP_CONTROLLER, [], None)),
    (
        FlowMod(
            Match(in_port=3),
            INSTRUCTIONS,
            of.OFPFC_MODIFY_STRICT,
            table_id=2,
            priority=100,
            cookie=1,
            cookie_mask=2,
            idle_timeout=3,
            hard_timeout=4,
            flags=of.OFPFF_SEND_FLOW_REM,
        ),
        osken.OFPFlowMod(
            DATAPATH,
            cookie=1,
            cookie_mask=2,
            table_id=2,
            command=of.OFPFC_MODIFY_STRICT,
            idle_timeout=3,
            hard_timeout=4,
            priority=100,
            out_port=of.OFPP_ANY,
            out_group=of.OFPG_ANY,
            flags=of.OFPFF_SEND_FLOW_REM,
            match=osken.OFPMatch(in_port=3),
            instructions=osken_instructions(),
        ),
    ),
    (
        FlowMod(command=of.OFPFC_DELETE, table_id=of.OFPTT_ALL, out_port=5, out_group=6, buffer_id=7),
        osken.OFPFlowMod(
            DATAPATH, command=of.OFPFC_DELETE, table_id=of.OFPTT_ALL, out_port=5, out_group=6, buffer_id=7
        ),
    ),
    (
        GroupMod(of.OFPGC_ADD, 9, of.OFPGT_SELECT, (Bucket(ACTIONS, 1), Bucket((), 2, 3, 4))),
        osken.OFPGroupMod(
            DATAPATH,
            of.OFPGC_ADD,
            of.OFPGT_SELECT,
            9,
            [
                osken.OFPBucket(1, of.OFPP_ANY, of.OFPG_ANY, osken_actions()),
                osken.OFPBucket(2, 3, 4, []),
            ],
        ),
    ),
    (BarrierRequest(), osken.OFPBarrierRequest(DATAPATH)),
    *(
        (RoleRequest(role, generation), osken.OFPRoleRequest(DATAPATH, role, generation))
        for role, generation in (
            (of.OFPCR_ROLE_NOCHANGE, 0),
            (of.OFPCR_ROLE_EQUAL, 1),
            (of.OFPCR_ROLE_MASTER, 1 << 40),
            (of.OFPCR_ROLE_SLAVE, (1 << 64) - 1),
        )
    ),
    (
        ErrorMsg(of.OFPET_ROLE_REQUEST_FAILED, of.OFPRRFC_STALE, RoleRequest(of.OFPCR_ROLE_MASTER, 5).pack(XID)),
        osken.OFPErrorMsg(
            DATAPATH,
            ofproto_v1_3.OFPET_ROLE_REQUEST_FAILED,
            ofproto_v1_3.OFPRRFC_STALE,
            osken_bytes(osken.OFPRoleRequest(DATAPATH, of.OFPCR_ROLE_MASTER, 5)),
        ),
    ),
    (
        ErrorMsg(of.OFPET_BAD_REQUEST, of.OFPBRC_IS_SLAVE, b"the flow-mod"),
        osken.OFPErrorMsg(
            DATAPATH, ofproto_v1_3.OFPET_BAD_REQUEST, ofproto_v1_3.OFPBRC_IS_SLAVE, b"the flow-mod"
        ),
    ),
    (MultipartRequest(of.OFPMP_DESC), osken.OFPDescStatsRequest(DATAPATH, 0)),
    (MultipartRequest(of.OFPMP_PORT_DESC), osken.OFPPortDescStatsRequest(DATAPATH, 0)),
    (MultipartRequest(of.OFPMP_PORT_STATS, PortStatsRequest(7)), osken.OFPPortStatsRequest(DATAPATH, 0, 7)),
    (MultipartRequest(of.OFPMP_TABLE), osken.OFPTableStatsRequest(DATAPATH, 0)),
    (
        MultipartRequest(of.OFPMP_FLOW, FlowStatsRequest(Match(in_port=3), 1, 2, 3, 4, 5)),
        osken.OFPFlowStatsRequest(DATAPATH, 0, 1, 2, 3, 4, 5, osken.OFPMatch(in_port=3)),
    ),
    (
        MultipartRequest(of.OFPMP_AGGREGATE, FlowStatsRequest()),
        osken.OFPAggregateStatsRequest(
            DATAPATH, 0, of.OFPTT_ALL, of.OFPP_ANY, of.OFPG_ANY, 0, 0, osken.OFPMatch()
        ),
    ),
]


@pytest.mark.parametrize(("ours", "theirs"), FROM_CONTROLLER, ids=lambda value: type(value).__name__)
def test_a_controllers_messages_byte_for_byte(ours: Message, theirs: Any) -> None:
    packed = osken_bytes(theirs)
    assert ours.pack(XID).hex() == packed.hex()
    assert parse(packed) == (XID, ours)


@pytest.mark.parametrize(("ours", "theirs"), MATCHES)
def test_matches_byte_for_byte(ours: Match, theirs: dict[str, Any]) -> None:
    packed = osken_bytes(
        osken.OFPFlowMod(
            DATAPATH, out_port=of.OFPP_ANY, out_group=of.OFPG_ANY, match=osken.OFPMatch(**theirs)
        )
    )
    assert FlowMod(ours).pack(XID).hex() == packed.hex()
    assert parse(packed) == (XID, FlowMod(ours))


PORT = Port(3, MAC, "eth3", 1, 4, 5, 6, 7, 8, 9, 10)


def check_port(theirs: Any) -> None:
    fields = ("port_no", "config", "state", "curr", "advertised", "supported", "peer", "curr_speed", "max_speed")
    assert {name: getattr(theirs, name) for name in fields} == {name: getattr(PORT, name) for name in fields}
    assert (theirs.hw_addr, theirs.name) == (MAC_TEXT, b"eth3")


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (
            FeaturesReply(1 << 60, 2, 3, 4, 5),
            {"datapath_id": 1 << 60, "n_buffers": 2, "n_tables": 3, "auxiliary_id": 4, "capabilities": 5},
        ),
        (GetConfigReply(1, 128), {"flags": 1, "miss_send_len": 128}),
        (BarrierReply(), {}),
        (RoleReply(of.OFPCR_ROLE_SLAVE, 1 << 40), {"role": of.OFPCR_ROLE_SLAVE, "generation_id": 1 << 40}),
        (
            RoleReply(of.OFPCR_ROLE_MASTER, (1 << 64) - 1),
            {"role": of.OFPCR_ROLE_MASTER, "generation_id": (1 << 64) - 1},
        ),
        (
            PacketIn(1, 5, of.OFPR_ACTION, 3, 4, Match(in_port=3), b"frame"),
            {"buffer_id": 1, "total_len": 5, "reason": 1, "table_id": 3, "cookie": 4, "data": b"frame"},
        ),
        (
            FlowRemoved(Match(in_port=3), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
            {
                "cookie": 1,
                "priority": 2,
                "reason": 3,
                "table_id": 4,
                "duration_sec": 5,
                "duration_nsec": 6,
                "idle_timeout": 7,
                "hard_timeout": 8,
                "packet_count": 9,
                "byte_count": 10,
            },
        ),
        (PortStatus(of.OFPPR_DELETE, PORT), {"reason": of.OFPPR_DELETE}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_switchs_messages_field_by_field(message: Message, fields: dict[str, Any]) -> None:
    packed = message.pack(XID)
    assert parse(packed) == (XID, message)
    theirs = osken_reads(packed)
    assert {name: getattr(theirs, name) for name in fields} == fields
    if isinstance(message, PacketIn | FlowRemoved):
        assert dict(theirs.match.items()) == {"in_port": 3}
    if isinstance(message, PortStatus):
        check_port(theirs.desc)


@pytest.mark.parametrize(("ours", "theirs"), MATCHES)
def test_the_match_of_a_packet_in(ours: Match, theirs: dict[str, Any]) -> None:
    packed = PacketIn(1, 5, 0, 0, 0, ours, b"frame").pack(XID)
    read = osken_reads(packed)
    assert dict(read.match.items()) == theirs
    assert read.data == b"frame"
    assert parse(packed)[1] == PacketIn(1, 5, 0, 0, 0, ours, b"frame")


def test_version_bitmaps() -> None:
    # one word only: os-ken does not skip the padding behind two, and never comes back
    read = osken_reads(Hello(4, (1, 4, 6)).pack(XID))
    assert [element.versions for element in read.elements] == [[1, 4, 6]]


def test_descriptions_of_ports() -> None:
    (port,) = osken_reads(MultipartReply(of.OFPMP_PORT_DESC, (PORT,)).pack(XID)).body
    check_port(port)


def test_statistics_of_flows() -> None:
    first = FlowStats(1, Match(in_port=3), INSTRUCTIONS, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    packed = MultipartReply(of.OFPMP_FLOW, (first, FlowStats(2, Match()))).pack(XID)
    one, two = osken_reads(packed).body
    assert (one.table_id, one.priority, one.cookie, one.duration_sec, one.duration_nsec) == (1, 2, 3, 4, 5)
    assert (one.idle_timeout, one.hard_timeout, one.flags) == (6, 7, 8)
    assert (one.packet_count, one.byte_count) == (9, 10)
    assert dict(one.match.items()) == {"in_port": 3}
    # what os-ken read, it serializes again
    again = bytearray()
    for instruction in one.instructions:
        instruction.serialize(again, len(again))
    assert bytes(again) == b"".join(instruction.pack() for instruction in INSTRUCTIONS)
    assert (two.table_id, two.instructions) == (2, [])


def test_other_statistics() -> None:
    aggregate = osken_reads(MultipartReply(of.OFPMP_AGGREGATE, (AggregateStats(1, 2, 3),)).pack(XID)).body
    assert (aggregate.packet_count, aggregate.byte_count, aggregate.flow_count) == (1, 2, 3)
    (table,) = osken_reads(MultipartReply(of.OFPMP_TABLE, (TableStats(1, 2, 3, 4),)).pack(XID)).body
    assert (table.table_id, table.active_count, table.lookup_count, table.matched_count) == (1, 2, 3, 4)
    desc = osken_reads(MultipartReply(of.OFPMP_DESC, (Desc("a", "b", "c", "d", "e"),)).pack(XID)).body
    assert list(desc) == [b"a", b"b", b"c", b"d", b"e"]


def test_statistics_of_ports() -> None:
    numbers = tuple(range(1, 16))
    packed = MultipartReply(of.OFPMP_PORT_STATS, (PortStats(*numbers), PortStats(9))).pack(XID)
    one, two = osken_reads(packed).body
    assert tuple(getattr(one, field.name) for field in fields(PortStats)) == numbers
    assert (two.port_no, two.rx_bytes, two.tx_bytes) == (9, 0, 0)


def test_constants_have_os_kens_values() -> None:
    shared = {name for name in vars(of) if name.startswith("OFP") and hasattr(ofproto_v1_3, name)}
    assert len(shared) > 200
    assert {name: getattr(of, name) for name in shared} == {name: getattr(ofproto_v1_3, name) for name in shared}
