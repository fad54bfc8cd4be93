"""The bytes of eBPF programs, and what the mirror writes into the trie."""

import ipaddress

import pytest

from followme.xtr import fastpath_programs
from followme.xtr.bpf import FP, R0, R1, R2, Helper, Program

R_LOCAL, R_FAR = ipaddress.IPv4Address("192.0.2.1"), ipaddress.IPv4Address("192.0.2.6")


def test_instructions_have_the_bytes_of_rfc_9669() -> None:
    code = Program()
    code.load(4, R2, R1, 16)
    code.store(2, FP, -8, R2)
    code.put(1, FP, -4, 7)
    code.add(R2, -14)
    code.network_order(R2, 16)
    code.call(Helper.FIB_LOOKUP)
    code.constant(R0, 0x1122334455667788)
    code.map(R1, 5)
    code.exit(2)
    assert code.assemble().hex(" ", 8) == " ".join([
        "6112100000000000", "6b2af8ff00000000", "720afcff07000000", "07020000f2ffffff", "dc02000010000000",
        "8500000045000000", "1800000088776655", "0000000044332211", "1811000005000000", "0000000000000000",
        "b700000002000000", "9500000000000000",
    ])  # fmt: skip


def test_jumps_count_from_the_next_instruction_and_over_both_halves_of_a_wide_one() -> None:
    code = Program()
    code.label("top")
    code.if_equal(R1, 3, "end")
    code.constant(R2, 1)
    code.unless_equal(R1, 9, "top")
    code.label("end")
    code.exit()
    assert [code.assemble()[at * 8 : at * 8 + 8].hex() for at in (0, 3)] == ["1501030003000000", "5501fcff09000000"]


def test_a_jump_to_nowhere_and_a_label_twice_are_refused() -> None:
    code = Program()
    code.if_above(R1, 1, "lost")
    with pytest.raises(ValueError, match="no label lost"):
        code.assemble()
    code.label("lost")
    with pytest.raises(ValueError, match="label lost is there already"):
        code.label("lost")


def test_an_entry_has_the_header_of_lisp_gpe_and_the_sum_of_what_does_not_change() -> None:
    kind, local, far, first, second, fixed = fastpath_programs.ENTRY.unpack(
        fastpath_programs.entry(R_LOCAL, R_FAR, 0x010203)
    )
    assert (kind, local, far) == (fastpath_programs.KIND_ENCAP, R_LOCAL.packed, R_FAR.packed)
    assert (first.hex(), second.hex()) == ("0c000001", "01020300")
    plain = fastpath_programs.entry(R_LOCAL, R_FAR, 0x010203, plain=True)
    assert fastpath_programs.ENTRY.unpack(plain)[3:5] == (bytes([0x08, 0, 0, 0]), second)
    header = bytes([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0]) + local + far
    whole = sum(int.from_bytes(header[at : at + 2], "little") for at in range(0, 20, 2))
    assert fixed == whole - 0x45
    assert len(fastpath_programs.LEAVE) == fastpath_programs.ENTRY.size


def test_the_programs_are_whole_and_small() -> None:
    sizes = [
        len(fastpath_programs.encapsulate(3, 4, 2).assemble()),
        len(fastpath_programs.decapsulate(4, R_LOCAL, plain=False).assemble()),
    ]
    assert all(0 < size < 8 * 512 for size in sizes)
    longer = fastpath_programs.decapsulate(4, R_LOCAL, plain=True).assemble()
    assert len(longer) == sizes[1] + 8  # one more header is known
    handing = [
        len(fastpath_programs.encapsulate(3, 4, 2, peer=2).assemble()),
        len(fastpath_programs.decapsulate(4, R_LOCAL, plain=False, peer=5).assemble()),
    ]
    assert all(more > size for more, size in zip(handing, sizes, strict=True))
    assert 0 < len(fastpath_programs.onward(4, 5).assemble()) < 8 * 512
