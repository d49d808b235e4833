"""The known attack on AES-GCM: one ciphertext that opens under many keys, by arithmetic in GF(2^128)."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

ONE = 1 << 127


def times(x: int, y: int) -> int:
    """Product in GF(2^128) with GCM's bit order (SP 800-38D, algorithm 1)."""
    product = 0
    for bit in range(127, -1, -1):
        if x >> bit & 1:
            product ^= y
        y = (y >> 1) ^ (0xE1 << 120 if y & 1 else 0)
    return product


def inverse(x: int) -> int:
    """x^(2^128 - 2)."""
    result, power = ONE, x
    for _ in range(127):
        power = times(power, power)
        result = times(result, power)
    return result


def _block(cipher_key: bytes, block: bytes) -> int:
    """AES of one block, as the tag mask and hash key of GCM use it."""
    return int.from_bytes(Cipher(algorithms.AES256(cipher_key), modes.ECB()).encryptor().update(block))


def ciphertext_for(keys: Sequence[bytes], nonce: bytes) -> bytes:
    """Ciphertext and tag that plain AES-GCM accepts under every one of `keys`.

    The tag under a key with hash key H is sum(C_j H^(m+2-j)) + L H + mask. One block fewer than keys, and the tag
    itself, are the unknowns of as many linear equations.
    """
    blocks = len(keys) - 1
    length = blocks * 128  # u64 zero bits of associated data | u64 bits of ciphertext
    rows = []
    for key in keys:
        powers = [ONE, _block(key, bytes(16))]
        while len(powers) < blocks + 2:
            powers.append(times(powers[-1], powers[1]))
        known = times(length, powers[1]) ^ _block(key, nonce + b"\0\0\0\1")
        rows.append([*reversed(powers[2:]), ONE, known])  # the unknown tag moved to this side
    return b"".join(value.to_bytes(16) for value in _solved(rows))


def _solved(rows: list[list[int]]) -> list[int]:
    """Gauss-Jordan over GF(2^128): the last column is what the others add up to."""
    size = len(rows)
    for at in range(size):
        pivot = next(row for row in range(at, size) if rows[row][at])
        rows[at], rows[pivot] = rows[pivot], rows[at]
        factor = inverse(rows[at][at])
        rows[at] = [times(value, factor) for value in rows[at]]
        for other in range(size):
            if other != at and (lead := rows[other][at]):
                pairs = zip(rows[other], rows[at], strict=True)
                rows[other] = [value ^ times(lead, ours) for value, ours in pairs]
    return [row[-1] for row in rows]
