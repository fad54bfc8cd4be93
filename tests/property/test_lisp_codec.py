"""Whatever the message, its octets give it back; whatever the octets, a message or ``LispError``."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from followme.lisp import (
    DataHeader,
    EidPrefix,
    EidRecord,
    EncapsulatedControlMessage,
    FastRequest,
    Lcaf,
    LcafEid,
    LispError,
    Locator,
    MapNotify,
    MapNotifyAck,
    MappingRecord,
    MapRegister,
    MapReply,
    MapRequest,
    UnknownMessage,
    decode,
    decode_data_header,
    map_reply_fast,
    parse_map_request_fast,
    sign,
    verify,
)

KEY = b"a shared secret"


def numbers(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, (1 << bits) - 1)


v4 = numbers(32).map(IPv4Address)
v6 = numbers(128).map(IPv6Address)
iids = st.just(0) | numbers(24)


def _prefix(iid: int, number: int, octets: int, length: int) -> EidPrefix:
    host = octets * 8 - length
    return EidPrefix(iid, (number >> host << host).to_bytes(octets, "big"), length)


prefixes = st.builds(_prefix, iids, numbers(32), st.just(4), st.integers(0, 32)) | st.builds(
    _prefix, iids, numbers(128), st.just(16), st.integers(0, 128)
)
hosts = st.builds(_prefix, iids, numbers(32), st.just(4), st.just(32)) | st.builds(
    _prefix, iids, numbers(128), st.just(16), st.just(128)
)
# Type 2 with an IP address in it is an instance-ID, which is an EidPrefix when it is read as an EID.
lcafs = st.builds(
    Lcaf, numbers(8).filter(lambda kind: kind != 2), st.binary(max_size=30), numbers(8), numbers(8), numbers(8)
)
eids = prefixes | st.builds(LcafEid, lcafs, numbers(8))
locators = st.builds(
    Locator,
    st.none() | v4 | v6 | lcafs,
    numbers(8),
    numbers(8),
    numbers(8),
    numbers(8),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
records = st.builds(
    MappingRecord,
    eids,
    st.lists(locators, max_size=4).map(tuple),
    numbers(32),
    numbers(3),
    st.booleans(),
    numbers(12),
)
some_records = st.lists(records, max_size=4).map(tuple)
xtrs = st.none() | st.binary(min_size=16, max_size=16)


def _with_site(message: MapRequest, site_id: int) -> MapRequest:
    return message if message.xtr_id is None else replace(message, site_id=site_id)


requests = st.builds(
    _with_site,
    st.builds(
        MapRequest,
        nonce=numbers(64),
        itr_rlocs=st.lists(v4 | v6 | lcafs | st.none(), min_size=1, max_size=32).map(tuple),
        records=st.lists(st.builds(EidRecord, eids, st.booleans()), min_size=1, max_size=5).map(tuple),
        source_eid=st.none() | hosts | st.builds(LcafEid, lcafs),
        authoritative=st.booleans(),
        probe=st.booleans(),
        smr=st.booleans(),
        pitr=st.booleans(),
        smr_invoked=st.booleans(),
        local_xtr=st.booleans(),
        dont_map_reply=st.booleans(),
        map_reply=st.none() | records,
        xtr_id=xtrs,
    ),
    numbers(64),
)
replies = st.builds(
    MapReply, numbers(64), some_records, st.booleans(), st.booleans(), st.none() | st.binary(max_size=40)
)
registers = st.builds(
    MapRegister,
    numbers(64),
    some_records,
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    xtrs,
    key_id=numbers(8),
    algorithm_id=numbers(8),
    authentication=st.binary(max_size=40),
)
notifies = st.builds(
    MapNotify,
    numbers(64),
    some_records,
    xtrs,
    key_id=numbers(8),
    algorithm_id=numbers(8),
    authentication=st.binary(max_size=40),
)
acks = notifies.map(
    lambda n: MapNotifyAck(n.nonce, n.records, n.xtr_id, 0, n.key_id, n.algorithm_id, n.authentication)
)
unknowns = st.builds(
    lambda kind, rest: UnknownMessage(bytes((kind << 4,)) + rest),
    st.sampled_from([0, 6, 7, 9, 10, 11, 12, 13, 14, 15]),
    st.binary(max_size=60),
)
plain = requests | replies | registers | notifies | acks | unknowns
ecms = st.builds(
    lambda pair, message, source_port, port, ddt: EncapsulatedControlMessage(
        pair[0], pair[1], message, source_port, port, ddt
    ),
    st.tuples(v4, v4) | st.tuples(v6, v6),
    plain,
    numbers(16),
    numbers(16),
    st.booleans(),
)
messages = plain | ecms

common = st.builds(
    lambda pair, nonce, rloc, eid, source, pitr, invoked, port: EncapsulatedControlMessage(
        pair[0],
        pair[1],
        MapRequest(nonce, (rloc,), (EidRecord(eid),), source, pitr=pitr, smr_invoked=invoked),
        port,
    ),
    st.tuples(v4, v4) | st.tuples(v6, v6),
    numbers(64),
    v4 | v6,
    prefixes,
    st.none() | hosts,
    st.booleans(),
    st.booleans(),
    numbers(16),
)
"""Map-Requests of the form that the hot path reads."""


def decoded_or_refused(data: bytes) -> object:
    """Any exception but the library's own passes through here and fails the test."""
    refusal = "nothing was refused"
    message: object = None
    try:
        message = decode(data)
    except LispError as refused:
        refusal = str(refused)
    assert refusal, "a refusal says what was wrong"
    return message


@given(message=messages)
def test_octets_give_the_message_back(message: MapRequest) -> None:
    data = message.encode()
    read = decode(data)
    assert read == message
    assert read.encode() == data


@given(data=st.binary(max_size=200))
def test_any_octets(data: bytes) -> None:
    decoded_or_refused(data)


@given(message=messages, at=numbers(12), flip=st.integers(1, 255))
def test_one_octet_changed(message: MapRequest, at: int, flip: int) -> None:
    data = bytearray(message.encode())
    data[at % len(data)] ^= flip
    decoded_or_refused(bytes(data))


@given(message=messages, cut=numbers(12))
def test_cut_short(message: MapRequest, cut: int) -> None:
    data = message.encode()
    size = cut % len(data)
    read = decoded_or_refused(data[:size])
    # Only what has no length of its own can be cut: unknown messages, and LISP-SEC behind a Map-Reply.
    assert (
        read is None
        or isinstance(read, UnknownMessage)
        or (isinstance(read, MapReply) and read.security is not None)
    )


@given(message=requests | registers | notifies | acks | ecms, tail=st.binary(min_size=1, max_size=30))
def test_anything_behind_the_end(message: MapRequest, tail: bytes) -> None:
    assert decoded_or_refused(message.encode() + tail) is None


@given(
    message=registers | notifies | acks,
    algorithm_id=st.sampled_from([1, 2]),
    at=numbers(12),
    flip=st.integers(1, 255),
)
def test_signed_and_forged(message: MapRegister, algorithm_id: int, at: int, flip: int) -> None:
    signed = sign(message, KEY, algorithm_id).encode()
    assert verify(signed, KEY)
    forged = bytearray(signed)
    forged[at % len(forged)] ^= flip
    try:
        accepted = verify(bytes(forged), KEY)
    except LispError:
        accepted = False
    assert not accepted


@given(data=st.binary(max_size=100), kind=st.sampled_from([0x30, 0x40, 0x50]))
def test_verify_of_any_octets(data: bytes, kind: int) -> None:
    for candidate in (data, bytes((kind,)) + data):
        try:
            accepted = verify(candidate, KEY)
        except LispError:
            accepted = False
        assert not accepted


def fast_as_decoded(data: bytes) -> FastRequest | None:
    """What the hot path must say of ``data``, worked out from ``decode`` alone."""
    try:
        ecm = decode(data)
    except LispError:
        return None
    if not isinstance(ecm, EncapsulatedControlMessage) or not isinstance(ecm.message, MapRequest):
        return None
    request = ecm.message
    eid, rloc = request.records[0].eid, request.itr_rlocs[0]
    if not isinstance(eid, EidPrefix) or not isinstance(rloc, IPv4Address | IPv6Address):
        return None
    return FastRequest(request.nonce.to_bytes(8, "big"), eid, rloc.packed, ecm.source_port)


@given(message=common)
def test_the_hot_path_reads_every_common_request(message: EncapsulatedControlMessage) -> None:
    data = message.encode()
    assert parse_map_request_fast(data) == fast_as_decoded(data) is not None


@given(message=common | ecms | plain)
def test_the_hot_path_leaves_the_rest(message: EncapsulatedControlMessage) -> None:
    data = message.encode()
    fast = parse_map_request_fast(data)
    if fast is None:
        return
    assert fast == fast_as_decoded(data)
    request = message.message
    assert isinstance(request, MapRequest)
    assert (len(request.itr_rlocs), len(request.records), request.subscribes, request.xtr_id) == (1, 1, False, None)
    assert request == MapRequest(
        request.nonce,
        request.itr_rlocs,
        request.records,
        request.source_eid,
        pitr=request.pitr,
        smr_invoked=request.smr_invoked,
    )


@given(message=common, at=numbers(8), flip=st.integers(1, 255), checksum=st.booleans())
def test_the_hot_path_accepts_nothing_that_decode_refuses(
    message: EncapsulatedControlMessage, at: int, flip: int, checksum: bool
) -> None:
    data = bytearray(message.encode())
    if not checksum and data[4] == 0x45:
        # Without a UDP checksum a change goes unnoticed there, and the fields themselves are looked at.
        data[30:32] = b"\0\0"
    data[at % len(data)] ^= flip
    fast = parse_map_request_fast(bytes(data))
    assert fast is None or fast == fast_as_decoded(bytes(data))


@given(message=common, cut=numbers(8), data=st.binary(max_size=120))
def test_the_hot_path_never_raises(message: EncapsulatedControlMessage, cut: int, data: bytes) -> None:
    whole = message.encode()
    assert parse_map_request_fast(whole[: cut % len(whole)]) is None
    assert parse_map_request_fast(whole + b"\0") is None
    assert parse_map_request_fast(data) == fast_as_decoded(data)


@given(nonce=numbers(64), record=records)
def test_the_hot_path_writes_what_encode_writes(nonce: int, record: MappingRecord) -> None:
    assert map_reply_fast(nonce.to_bytes(8, "big"), record.encode()) == MapReply(nonce, (record,)).encode()


def _header(data: st.DataObject) -> DataHeader:
    gpe = data.draw(st.booleans())
    kind = data.draw(st.sampled_from(["nonce", "versions", "neither"]))
    iid = data.draw(st.none() | numbers(24))
    return DataHeader(
        nonce=data.draw(numbers(16 if gpe else 24)) if kind == "nonce" else None,
        locator_status=data.draw(st.none() | numbers(32 if iid is None else 8)),
        echo_nonce=kind == "nonce" and data.draw(st.booleans()),
        map_versions=data.draw(st.tuples(*[numbers(8 if gpe else 12)] * 2)) if kind == "versions" else None,
        instance_id=iid,
        next_protocol=data.draw(numbers(8)) if gpe else None,
        key=data.draw(numbers(2)),
    )


@given(data=st.data())
def test_data_header(data: st.DataObject) -> None:
    header = _header(data)
    octets = header.encode()
    assert len(octets) == 8
    assert decode_data_header(b"x" + octets + b"inner packet", 1) == header


@given(data=st.binary(max_size=12))
def test_any_octets_as_a_data_header(data: bytes) -> None:
    header: DataHeader | None = None
    refusal = ""
    try:
        header = decode_data_header(data)
    except LispError as refused:
        refusal = str(refused)
    if header is None:
        assert len(data) < 8 or "same place" in refusal or "no nonce" in refusal
    else:
        assert decode_data_header(header.encode()) == header


@pytest.mark.parametrize("count", [1, 255])
@given(rest=st.binary(max_size=64))
def test_a_count_that_lies(count: int, rest: bytes) -> None:
    for kind in (0x10, 0x20):
        decoded_or_refused(bytes((kind, 0, 31, count)) + rest)
