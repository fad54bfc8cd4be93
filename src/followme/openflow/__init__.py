"""OpenFlow 1.3 without I/O: messages (``parse``, ``Message.pack``) and one side of a connection.

``constants`` holds the numbers under the specification's names: ``from followme.openflow import constants
as of``. Nothing here knows a socket, a clock or the rest of the project.
"""

from . import constants
from .actions import (
    Action,
    Group,
    Output,
    RawAction,
    SetField,
    set_arp_spa,
    set_arp_tpa,
    set_eth_dst,
    set_eth_src,
    set_ipv4_dst,
    set_ipv4_src,
)
from .connection import Connection, Side, State
from .errors import NotConnected, OpenFlowError, OutputFull
from .events import Closed, Event, Ready, Received, RoundTrip
from .flows import Bucket, FlowMod, FlowRemoved, GroupMod
from .instructions import (
    ApplyActions,
    ClearActions,
    GotoTable,
    Instruction,
    RawInstruction,
    WriteActions,
    WriteMetadata,
)
from .match import Match
from .message import Message
from .messages import Unknown, parse
from .multipart import (
    AggregateStats,
    Desc,
    FlowStats,
    FlowStatsRequest,
    MultipartReply,
    MultipartRequest,
    TableStats,
)
from .packets import PacketIn, PacketOut
from .port_stats import PortStats, PortStatsRequest
from .ports import Port, PortStatus
from .session import (
    BarrierReply,
    BarrierRequest,
    EchoReply,
    EchoRequest,
    ErrorMsg,
    FeaturesReply,
    FeaturesRequest,
    GetConfigReply,
    GetConfigRequest,
    Hello,
    RoleReply,
    RoleRequest,
    SetConfig,
)

__all__ = [
    "Action",
    "AggregateStats",
    "ApplyActions",
    "BarrierReply",
    "BarrierRequest",
    "Bucket",
    "ClearActions",
    "Closed",
    "Connection",
    "Desc",
    "EchoReply",
    "EchoRequest",
    "ErrorMsg",
    "Event",
    "FeaturesReply",
    "FeaturesRequest",
    "FlowMod",
    "FlowRemoved",
    "FlowStats",
    "FlowStatsRequest",
    "GetConfigReply",
    "GetConfigRequest",
    "GotoTable",
    "Group",
    "GroupMod",
    "Hello",
    "Instruction",
    "Match",
    "Message",
    "MultipartReply",
    "MultipartRequest",
    "NotConnected",
    "OpenFlowError",
    "Output",
    "OutputFull",
    "PacketIn",
    "PacketOut",
    "Port",
    "PortStats",
    "PortStatsRequest",
    "PortStatus",
    "RawAction",
    "RawInstruction",
    "Ready",
    "Received",
    "RoleReply",
    "RoleRequest",
    "RoundTrip",
    "SetConfig",
    "SetField",
    "Side",
    "State",
    "TableStats",
    "Unknown",
    "WriteActions",
    "WriteMetadata",
    "constants",
    "parse",
    "set_arp_spa",
    "set_arp_tpa",
    "set_eth_dst",
    "set_eth_src",
    "set_ipv4_dst",
    "set_ipv4_src",
]
