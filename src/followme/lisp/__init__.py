"""LISP without I/O: control messages (RFC 9301, 9437), data headers (RFC 9300, 9305), authentication.

``decode(datagram)`` gives a message, ``message.encode()`` its octets; ``sign`` and ``verify`` take a shared
key; ``parse_map_request_fast`` and ``map_reply_fast`` are for a Map-Server with much to do. All refuse
with ``LispError`` only. Nothing here knows a socket, a clock or the rest of the project.
"""

from .address import (
    AFI_IPV4,
    AFI_IPV6,
    AFI_LCAF,
    AFI_NONE,
    LCAF_INSTANCE_ID,
    MAX_INSTANCE_ID,
    Address,
    Eid,
    EidPrefix,
    Lcaf,
    LcafEid,
    is_rloc,
)
from .authentication import HMAC_SHA_1_96, HMAC_SHA_256_128, sign, verify
from .dataheader import DATA_HEADER_SIZE, DATA_PORT, DataHeader, NextProtocol, decode_data_header
from .encapsulated import CONTROL_PORT, EncapsulatedControlMessage
from .errors import LispError
from .fast import FastRequest, map_reply_fast, parse_map_request_fast
from .message import Message, UnknownMessage, decode
from .record import TTL_UNLIMITED, UNUSABLE, Action, Locator, MappingRecord
from .register import MapNotify, MapNotifyAck, MapRegister
from .reply import MapReply, negative_map_reply
from .request import EidRecord, MapRequest

__all__ = [
    "AFI_IPV4",
    "AFI_IPV6",
    "AFI_LCAF",
    "AFI_NONE",
    "CONTROL_PORT",
    "DATA_HEADER_SIZE",
    "DATA_PORT",
    "HMAC_SHA_1_96",
    "HMAC_SHA_256_128",
    "LCAF_INSTANCE_ID",
    "MAX_INSTANCE_ID",
    "TTL_UNLIMITED",
    "UNUSABLE",
    "Action",
    "Address",
    "DataHeader",
    "Eid",
    "EidPrefix",
    "EidRecord",
    "EncapsulatedControlMessage",
    "FastRequest",
    "Lcaf",
    "LcafEid",
    "LispError",
    "Locator",
    "MapNotify",
    "MapNotifyAck",
    "MapRegister",
    "MapReply",
    "MapRequest",
    "MappingRecord",
    "Message",
    "NextProtocol",
    "UnknownMessage",
    "decode",
    "decode_data_header",
    "is_rloc",
    "map_reply_fast",
    "negative_map_reply",
    "parse_map_request_fast",
    "sign",
    "verify",
]
