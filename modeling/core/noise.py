"""Gaussian noise from a cryptographic source: an AES-256-CTR keystream whose key is never stored or given out."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

Floats = npt.NDArray[np.float64]
_CHUNK = 1 << 16  # values drawn at a time: keeps the intermediate arrays in the cache


class Keystream:
    """Uniform numbers from AES-256-CTR keyed by os.urandom(32). A forked child gets a new key on its next draw."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        key, counter = os.urandom(32), os.urandom(16)
        self._cipher: CipherContext = Cipher(algorithms.AES256(key), modes.CTR(counter)).encryptor()

    def uniform(self, count: int) -> Floats:
        """`count` independent float64 in [0, 1) with 53 random bits each."""
        if os.getpid() != self._pid:
            self._start()
        words = np.frombuffer(self._cipher.update(bytes(8 * count)), dtype=np.uint64)
        return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


class NoiseSource:
    """Standard normal draws: float64 Box-Muller, the sum of four draws halved.

    The sum hides the pattern of representable values that gives single floating-point draws away (Holohan &
    Braghin 2021). No seed exists, so a run cannot be repeated and noise cannot be subtracted later.
    """

    def __init__(self) -> None:
        self._stream = Keystream()

    def normal(self, count: int) -> Floats:
        """`count` independent standard normal values, float64 [count]."""
        result = np.empty(count)
        for start in range(0, count, _CHUNK):
            stop = min(start + _CHUNK, count)
            result[start:stop] = self._block(stop - start)
        return result

    def _block(self, count: int) -> Floats:
        uniforms = self._stream.uniform(4 * count).reshape(2, 2, count)
        radius = np.sqrt(-2.0 * np.log1p(-uniforms[0]))
        angle = (2.0 * np.pi) * uniforms[1]
        total: Floats = (radius * (np.cos(angle) + np.sin(angle))).sum(axis=0)
        return total / 2.0
