"""Which 32 octets are an Ed25519 public key that proves something (RFC 8032, section 5.1.3; RFC 7748, section 4.1).

Libraries take any: of a point of small order everybody can make signatures, of none at all nobody can.
"""

from __future__ import annotations

OCTETS = 32
_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_SMALL_ORDER = {
    0, 1, _P - 1,
    2707385501144840649318225287225658788936804267575313519463743609750303402022,
    55188659117513257062467267217118295137698188065244968500265048394206261417927,
}  # fmt: skip
"""The second coordinates of the eight points whose order divides 8."""


def proves(key: bytes) -> bool:
    """Whether a signature that it verifies can only be its owner's."""
    if len(key) != OCTETS:
        return False
    y = int.from_bytes(key, "little") & (1 << 255) - 1
    if y >= _P or y in _SMALL_ORDER:
        return False
    x_squared = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    return pow(x_squared, (_P - 1) // 2, _P) == 1
