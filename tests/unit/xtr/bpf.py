"""What the kernel does with a classic BPF program of the few instructions that the LAN's filter is made of."""

from __future__ import annotations

from followme.xtr.lanfilter import Instruction

PKTTYPE = 0xFFFFF004


def passes(code: list[Instruction], frame: bytes, pkttype: int = 0) -> bool:
    """Whether the frame is let through. A load behind its end rejects it, as in the kernel."""
    at = accumulator = 0
    while True:
        operation, true, false, value = code[at]
        at += 1
        if operation in (0x20, 0x28, 0x30):
            size = {0x20: 4, 0x28: 2, 0x30: 1}[operation]
            if value == PKTTYPE:
                accumulator = pkttype
            elif value + size > len(frame):
                return False
            else:
                accumulator = int.from_bytes(frame[value : value + size])
        elif operation == 0x54:
            accumulator &= value
        elif operation == 0x15:
            at += true if accumulator == value else false
        elif operation == 0x05:
            at += value
        elif operation == 0x06:
            return value > 0
        else:
            raise AssertionError(f"instruction {operation:#x}")
