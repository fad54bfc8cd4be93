"""The Internet checksum (RFC 1071)."""

from __future__ import annotations


def internet_checksum(data: bytes) -> int:
    """The 16-bit checksum of ``data``, padded by one zero byte if odd; 0 over data that holds a right one.

    A sum of 16-bit words with end-around carry is the remainder modulo 65535 of the data read as one big
    number (RFC 1071 section 2 (B)), which Python computes without a loop of ours.
    """
    number = int.from_bytes(data, "big")
    if len(data) & 1:
        number <<= 8
    remainder = number % 0xFFFF
    # One's complement has two zeros; a sum of anything but zeros never ends at +0 (RFC 1071 section 2 (B)).
    if remainder == 0 and number:
        return 0
    return 0xFFFF - remainder
