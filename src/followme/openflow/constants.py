"""Numbers of OpenFlow 1.3.5 under the names that the specification gives them.

Plain integers, not enums: a peer may send numbers that no enum has, and each name already carries its group
as a prefix. ``message_name`` and ``error_name`` turn numbers back into names for people.
"""

from __future__ import annotations

from typing import Final

OFP_VERSION: Final = 0x04
OFP_HEADER_SIZE: Final = 8
OFP_NO_BUFFER: Final = 0xFFFFFFFF
OFP_DEFAULT_PRIORITY: Final = 0x8000
OFPHET_VERSIONBITMAP: Final = 1
OFPMT_OXM: Final = 1

# Message types (7.1, enum ofp_type).
OFPT_HELLO: Final = 0
OFPT_ERROR: Final = 1
OFPT_ECHO_REQUEST: Final = 2
OFPT_ECHO_REPLY: Final = 3
OFPT_EXPERIMENTER: Final = 4
OFPT_FEATURES_REQUEST: Final = 5
OFPT_FEATURES_REPLY: Final = 6
OFPT_GET_CONFIG_REQUEST: Final = 7
OFPT_GET_CONFIG_REPLY: Final = 8
OFPT_SET_CONFIG: Final = 9
OFPT_PACKET_IN: Final = 10
OFPT_FLOW_REMOVED: Final = 11
OFPT_PORT_STATUS: Final = 12
OFPT_PACKET_OUT: Final = 13
OFPT_FLOW_MOD: Final = 14
OFPT_GROUP_MOD: Final = 15
OFPT_PORT_MOD: Final = 16
OFPT_TABLE_MOD: Final = 17
OFPT_MULTIPART_REQUEST: Final = 18
OFPT_MULTIPART_REPLY: Final = 19
OFPT_BARRIER_REQUEST: Final = 20
OFPT_BARRIER_REPLY: Final = 21
OFPT_QUEUE_GET_CONFIG_REQUEST: Final = 22
OFPT_QUEUE_GET_CONFIG_REPLY: Final = 23
OFPT_ROLE_REQUEST: Final = 24
OFPT_ROLE_REPLY: Final = 25
OFPT_GET_ASYNC_REQUEST: Final = 26
OFPT_GET_ASYNC_REPLY: Final = 27
OFPT_SET_ASYNC: Final = 28
OFPT_METER_MOD: Final = 29

# Reserved port numbers (7.2.1, enum ofp_port_no).
OFPP_MAX: Final = 0xFFFFFF00
OFPP_IN_PORT: Final = 0xFFFFFFF8
OFPP_TABLE: Final = 0xFFFFFFF9
OFPP_NORMAL: Final = 0xFFFFFFFA
OFPP_FLOOD: Final = 0xFFFFFFFB
OFPP_ALL: Final = 0xFFFFFFFC
OFPP_CONTROLLER: Final = 0xFFFFFFFD
OFPP_LOCAL: Final = 0xFFFFFFFE
OFPP_ANY: Final = 0xFFFFFFFF

# Port configuration bits (7.2.1, enum ofp_port_config).
OFPPC_PORT_DOWN: Final = 0x1
OFPPC_NO_RECV: Final = 0x4
OFPPC_NO_FWD: Final = 0x20
OFPPC_NO_PACKET_IN: Final = 0x40

# Port state bits (7.2.1, enum ofp_port_state).
OFPPS_LINK_DOWN: Final = 0x1
OFPPS_BLOCKED: Final = 0x2
OFPPS_LIVE: Final = 0x4

# Group numbers (7.3.4.2, enum ofp_group).
OFPG_MAX: Final = 0xFFFFFF00
OFPG_ALL: Final = 0xFFFFFFFC
OFPG_ANY: Final = 0xFFFFFFFF

# Group commands (7.3.4.2, enum ofp_group_mod_command).
OFPGC_ADD: Final = 0
OFPGC_MODIFY: Final = 1
OFPGC_DELETE: Final = 2

# Group types (7.3.4.2, enum ofp_group_type).
OFPGT_ALL: Final = 0
OFPGT_SELECT: Final = 1
OFPGT_INDIRECT: Final = 2
OFPGT_FF: Final = 3

# Flow commands (7.3.4.1, enum ofp_flow_mod_command).
OFPFC_ADD: Final = 0
OFPFC_MODIFY: Final = 1
OFPFC_MODIFY_STRICT: Final = 2
OFPFC_DELETE: Final = 3
OFPFC_DELETE_STRICT: Final = 4

# Flow flags (7.3.4.1, enum ofp_flow_mod_flags).
OFPFF_SEND_FLOW_REM: Final = 0x1
OFPFF_CHECK_OVERLAP: Final = 0x2
OFPFF_RESET_COUNTS: Final = 0x4
OFPFF_NO_PKT_COUNTS: Final = 0x8
OFPFF_NO_BYT_COUNTS: Final = 0x10

# Table numbers (7.3.3, enum ofp_table).
OFPTT_MAX: Final = 0xFE
OFPTT_ALL: Final = 0xFF

# Capabilities (7.3.1, enum ofp_capabilities) and fragment handling (7.3.2, enum ofp_config_flags).
OFPC_FLOW_STATS: Final = 0x1
OFPC_TABLE_STATS: Final = 0x2
OFPC_PORT_STATS: Final = 0x4
OFPC_GROUP_STATS: Final = 0x8
OFPC_IP_REASM: Final = 0x20
OFPC_QUEUE_STATS: Final = 0x40
OFPC_PORT_BLOCKED: Final = 0x100
OFPC_FRAG_NORMAL: Final = 0x0
OFPC_FRAG_DROP: Final = 0x1
OFPC_FRAG_REASM: Final = 0x2

# Why a PACKET_IN was sent (7.4.1, enum ofp_packet_in_reason).
OFPR_NO_MATCH: Final = 0
OFPR_ACTION: Final = 1
OFPR_INVALID_TTL: Final = 2

# Why a flow was removed (7.4.2, enum ofp_flow_removed_reason).
OFPRR_IDLE_TIMEOUT: Final = 0
OFPRR_HARD_TIMEOUT: Final = 1
OFPRR_DELETE: Final = 2
OFPRR_GROUP_DELETE: Final = 3

# What happened to a port (7.4.3, enum ofp_port_reason).
OFPPR_ADD: Final = 0
OFPPR_DELETE: Final = 1
OFPPR_MODIFY: Final = 2

# Controller roles (7.3.9, enum ofp_controller_role).
OFPCR_ROLE_NOCHANGE: Final = 0
OFPCR_ROLE_EQUAL: Final = 1
OFPCR_ROLE_MASTER: Final = 2
OFPCR_ROLE_SLAVE: Final = 3

# Multipart types (7.3.5, enum ofp_multipart_type).
OFPMP_DESC: Final = 0
OFPMP_FLOW: Final = 1
OFPMP_AGGREGATE: Final = 2
OFPMP_TABLE: Final = 3
OFPMP_PORT_STATS: Final = 4
OFPMP_QUEUE: Final = 5
OFPMP_GROUP: Final = 6
OFPMP_GROUP_DESC: Final = 7
OFPMP_GROUP_FEATURES: Final = 8
OFPMP_METER: Final = 9
OFPMP_METER_CONFIG: Final = 10
OFPMP_METER_FEATURES: Final = 11
OFPMP_TABLE_FEATURES: Final = 12
OFPMP_PORT_DESC: Final = 13
OFPMP_EXPERIMENTER: Final = 0xFFFF

# Multipart flags (7.3.5).
OFPMPF_REQ_MORE: Final = 1
OFPMPF_REPLY_MORE: Final = 1

# Instruction types (7.2.4, enum ofp_instruction_type).
OFPIT_GOTO_TABLE: Final = 1
OFPIT_WRITE_METADATA: Final = 2
OFPIT_WRITE_ACTIONS: Final = 3
OFPIT_APPLY_ACTIONS: Final = 4
OFPIT_CLEAR_ACTIONS: Final = 5
OFPIT_METER: Final = 6
OFPIT_EXPERIMENTER: Final = 0xFFFF

# Action types (7.2.5, enum ofp_action_type).
OFPAT_OUTPUT: Final = 0
OFPAT_COPY_TTL_OUT: Final = 11
OFPAT_COPY_TTL_IN: Final = 12
OFPAT_SET_MPLS_TTL: Final = 15
OFPAT_DEC_MPLS_TTL: Final = 16
OFPAT_PUSH_VLAN: Final = 17
OFPAT_POP_VLAN: Final = 18
OFPAT_PUSH_MPLS: Final = 19
OFPAT_POP_MPLS: Final = 20
OFPAT_SET_QUEUE: Final = 21
OFPAT_GROUP: Final = 22
OFPAT_SET_NW_TTL: Final = 23
OFPAT_DEC_NW_TTL: Final = 24
OFPAT_SET_FIELD: Final = 25
OFPAT_PUSH_PBB: Final = 26
OFPAT_POP_PBB: Final = 27
OFPAT_EXPERIMENTER: Final = 0xFFFF

# max_len of an output action to the controller (7.2.5, enum ofp_controller_max_len).
OFPCML_MAX: Final = 0xFFE5
OFPCML_NO_BUFFER: Final = 0xFFFF

# OXM classes (7.2.3.3, enum ofp_oxm_class).
OFPXMC_NXM_0: Final = 0x0
OFPXMC_NXM_1: Final = 0x1
OFPXMC_OPENFLOW_BASIC: Final = 0x8000
OFPXMC_EXPERIMENTER: Final = 0xFFFF

# VLAN bits (7.2.3.7, enum ofp_vlan_id).
OFPVID_PRESENT: Final = 0x1000
OFPVID_NONE: Final = 0x0

# Error types (7.4.4, enum ofp_error_type).
OFPET_HELLO_FAILED: Final = 0
OFPET_BAD_REQUEST: Final = 1
OFPET_BAD_ACTION: Final = 2
OFPET_BAD_INSTRUCTION: Final = 3
OFPET_BAD_MATCH: Final = 4
OFPET_FLOW_MOD_FAILED: Final = 5
OFPET_GROUP_MOD_FAILED: Final = 6
OFPET_PORT_MOD_FAILED: Final = 7
OFPET_TABLE_MOD_FAILED: Final = 8
OFPET_QUEUE_OP_FAILED: Final = 9
OFPET_SWITCH_CONFIG_FAILED: Final = 10
OFPET_ROLE_REQUEST_FAILED: Final = 11
OFPET_METER_MOD_FAILED: Final = 12
OFPET_TABLE_FEATURES_FAILED: Final = 13
OFPET_EXPERIMENTER: Final = 0xFFFF

# Codes of OFPET_HELLO_FAILED.
OFPHFC_INCOMPATIBLE: Final = 0
OFPHFC_EPERM: Final = 1

# Codes of OFPET_BAD_REQUEST.
OFPBRC_BAD_VERSION: Final = 0
OFPBRC_BAD_TYPE: Final = 1
OFPBRC_BAD_MULTIPART: Final = 2
OFPBRC_BAD_EXPERIMENTER: Final = 3
OFPBRC_BAD_EXP_TYPE: Final = 4
OFPBRC_EPERM: Final = 5
OFPBRC_BAD_LEN: Final = 6
OFPBRC_BUFFER_EMPTY: Final = 7
OFPBRC_BUFFER_UNKNOWN: Final = 8
OFPBRC_BAD_TABLE_ID: Final = 9
OFPBRC_IS_SLAVE: Final = 10
OFPBRC_BAD_PORT: Final = 11
OFPBRC_BAD_PACKET: Final = 12
OFPBRC_MULTIPART_BUFFER_OVERFLOW: Final = 13

# Codes of OFPET_BAD_ACTION.
OFPBAC_BAD_TYPE: Final = 0
OFPBAC_BAD_LEN: Final = 1
OFPBAC_BAD_EXPERIMENTER: Final = 2
OFPBAC_BAD_EXP_TYPE: Final = 3
OFPBAC_BAD_OUT_PORT: Final = 4
OFPBAC_BAD_ARGUMENT: Final = 5
OFPBAC_EPERM: Final = 6
OFPBAC_TOO_MANY: Final = 7
OFPBAC_BAD_QUEUE: Final = 8
OFPBAC_BAD_OUT_GROUP: Final = 9
OFPBAC_MATCH_INCONSISTENT: Final = 10
OFPBAC_UNSUPPORTED_ORDER: Final = 11
OFPBAC_BAD_TAG: Final = 12
OFPBAC_BAD_SET_TYPE: Final = 13
OFPBAC_BAD_SET_LEN: Final = 14
OFPBAC_BAD_SET_ARGUMENT: Final = 15

# Codes of OFPET_BAD_INSTRUCTION.
OFPBIC_UNKNOWN_INST: Final = 0
OFPBIC_UNSUP_INST: Final = 1
OFPBIC_BAD_TABLE_ID: Final = 2
OFPBIC_UNSUP_METADATA: Final = 3
OFPBIC_UNSUP_METADATA_MASK: Final = 4
OFPBIC_BAD_EXPERIMENTER: Final = 5
OFPBIC_BAD_EXP_TYPE: Final = 6
OFPBIC_BAD_LEN: Final = 7
OFPBIC_EPERM: Final = 8

# Codes of OFPET_BAD_MATCH.
OFPBMC_BAD_TYPE: Final = 0
OFPBMC_BAD_LEN: Final = 1
OFPBMC_BAD_TAG: Final = 2
OFPBMC_BAD_DL_ADDR_MASK: Final = 3
OFPBMC_BAD_NW_ADDR_MASK: Final = 4
OFPBMC_BAD_WILDCARDS: Final = 5
OFPBMC_BAD_FIELD: Final = 6
OFPBMC_BAD_VALUE: Final = 7
OFPBMC_BAD_MASK: Final = 8
OFPBMC_BAD_PREREQ: Final = 9
OFPBMC_DUP_FIELD: Final = 10
OFPBMC_EPERM: Final = 11

# Codes of OFPET_FLOW_MOD_FAILED.
OFPFMFC_UNKNOWN: Final = 0
OFPFMFC_TABLE_FULL: Final = 1
OFPFMFC_BAD_TABLE_ID: Final = 2
OFPFMFC_OVERLAP: Final = 3
OFPFMFC_EPERM: Final = 4
OFPFMFC_BAD_TIMEOUT: Final = 5
OFPFMFC_BAD_COMMAND: Final = 6
OFPFMFC_BAD_FLAGS: Final = 7

# Codes of OFPET_GROUP_MOD_FAILED.
OFPGMFC_GROUP_EXISTS: Final = 0
OFPGMFC_INVALID_GROUP: Final = 1
OFPGMFC_WEIGHT_UNSUPPORTED: Final = 2
OFPGMFC_OUT_OF_GROUPS: Final = 3
OFPGMFC_OUT_OF_BUCKETS: Final = 4
OFPGMFC_CHAINING_UNSUPPORTED: Final = 5
OFPGMFC_WATCH_UNSUPPORTED: Final = 6
OFPGMFC_LOOP: Final = 7
OFPGMFC_UNKNOWN_GROUP: Final = 8
OFPGMFC_CHAINED_GROUP: Final = 9
OFPGMFC_BAD_TYPE: Final = 10
OFPGMFC_BAD_COMMAND: Final = 11
OFPGMFC_BAD_BUCKET: Final = 12
OFPGMFC_BAD_WATCH: Final = 13
OFPGMFC_EPERM: Final = 14

# Codes of OFPET_PORT_MOD_FAILED.
OFPPMFC_BAD_PORT: Final = 0
OFPPMFC_BAD_HW_ADDR: Final = 1
OFPPMFC_BAD_CONFIG: Final = 2
OFPPMFC_BAD_ADVERTISE: Final = 3
OFPPMFC_EPERM: Final = 4

# Codes of OFPET_TABLE_MOD_FAILED.
OFPTMFC_BAD_TABLE: Final = 0
OFPTMFC_BAD_CONFIG: Final = 1
OFPTMFC_EPERM: Final = 2

# Codes of OFPET_SWITCH_CONFIG_FAILED.
OFPSCFC_BAD_FLAGS: Final = 0
OFPSCFC_BAD_LEN: Final = 1
OFPSCFC_EPERM: Final = 2

# Codes of OFPET_ROLE_REQUEST_FAILED.
OFPRRFC_STALE: Final = 0
OFPRRFC_UNSUP: Final = 1
OFPRRFC_BAD_ROLE: Final = 2

# Fields of the class OFPXMC_OPENFLOW_BASIC that Match names (7.2.3.7, enum oxm_ofb_match_fields).
OFPXMT_OFB_IN_PORT: Final = 0
OFPXMT_OFB_METADATA: Final = 2
OFPXMT_OFB_ETH_DST: Final = 3
OFPXMT_OFB_ETH_SRC: Final = 4
OFPXMT_OFB_ETH_TYPE: Final = 5
OFPXMT_OFB_VLAN_VID: Final = 6
OFPXMT_OFB_IP_PROTO: Final = 10
OFPXMT_OFB_IPV4_SRC: Final = 11
OFPXMT_OFB_IPV4_DST: Final = 12
OFPXMT_OFB_TCP_SRC: Final = 13
OFPXMT_OFB_TCP_DST: Final = 14
OFPXMT_OFB_UDP_SRC: Final = 15
OFPXMT_OFB_UDP_DST: Final = 16
OFPXMT_OFB_ICMPV4_TYPE: Final = 19
OFPXMT_OFB_ARP_OP: Final = 21
OFPXMT_OFB_ARP_SPA: Final = 22
OFPXMT_OFB_ARP_TPA: Final = 23


def _names(prefix: str) -> dict[int, str]:
    return {value: name for name, value in globals().items() if name.startswith(prefix)}


_MESSAGE_NAMES: Final = _names("OFPT_")
_ERROR_NAMES: Final = _names("OFPET_")
_CODE_NAMES: Final = {
    OFPET_HELLO_FAILED: _names("OFPHFC_"),
    OFPET_BAD_REQUEST: _names("OFPBRC_"),
    OFPET_BAD_ACTION: _names("OFPBAC_"),
    OFPET_BAD_INSTRUCTION: _names("OFPBIC_"),
    OFPET_BAD_MATCH: _names("OFPBMC_"),
    OFPET_FLOW_MOD_FAILED: _names("OFPFMFC_"),
    OFPET_GROUP_MOD_FAILED: _names("OFPGMFC_"),
    OFPET_PORT_MOD_FAILED: _names("OFPPMFC_"),
    OFPET_TABLE_MOD_FAILED: _names("OFPTMFC_"),
    OFPET_SWITCH_CONFIG_FAILED: _names("OFPSCFC_"),
    OFPET_ROLE_REQUEST_FAILED: _names("OFPRRFC_"),
}


def message_name(message_type: int) -> str:
    """``10`` to ``"OFPT_PACKET_IN"``."""
    return _MESSAGE_NAMES.get(message_type, f"message type {message_type}")


def error_name(error_type: int, code: int) -> str:
    """``(4, 9)`` to ``"OFPET_BAD_MATCH/OFPBMC_BAD_PREREQ"``."""
    kind = _ERROR_NAMES.get(error_type, f"error type {error_type}")
    return f"{kind}/{_CODE_NAMES.get(error_type, {}).get(code, f'code {code}')}"
