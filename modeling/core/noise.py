"""Gaussian noise from a cryptographic source: an AES-256-CTR keystream whose key is never stored or given out."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

Floats = npt.NDArray[np.float64]
_CHUNK = 1 << 14  # values drawn at a time: keeps the intermediate arrays in the cache
_MANY = 1 << 16  # from here on torch's vectorised sine is worth loading torch for: numpy's is 3x slower
_ONE = np.uint64(0x3FF0_0000_0000_0000)  # the bits of 1.0


class Keystream:
    """Uniform numbers from AES-256-CTR keyed by os.urandom(32). A forked child gets a new key on its next draw."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        key, counter = os.urandom(32), os.urandom(16)
        self._cipher: CipherContext = Cipher(algorithms.AES256(key), modes.CTR(counter)).encryptor()

    def uniform(self, count: int) -> Floats:
        """`count` independent float64 in [0, 1) with 52 random bits each."""
        if os.getpid() != self._pid:
            self._start()
        stream = bytearray(8 * count + 15)  # the cipher asks for room for one block more
        self._cipher.update_into(bytes(8 * count), stream)
        words = np.frombuffer(stream, dtype=np.uint64, count=count)
        # Random bits behind the exponent of 1.0 are a number in [1, 2): much faster than a conversion.
        np.right_shift(words, np.uint64(12), out=words)
        np.bitwise_or(words, _ONE, out=words)
        values = words.view(np.float64)
        values -= 1.0
        return values


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
            self._fill(result[start:stop], fast=count >= _MANY)
        return result

    def add_to(self, values: npt.NDArray[np.float32], scale: float) -> None:
        """values += scale · N(0, 1), in place: a flat float32 array, the sum taken in float64."""
        for start in range(0, values.size, _MANY):
            part = values[start : start + _MANY]
            noise = self.normal(part.size)
            noise *= scale
            noise += part
            part[:] = noise

    def _fill(self, out: Floats, *, fast: bool) -> None:
        radius, angle = self._stream.uniform(4 * out.size).reshape(2, 2, out.size)
        np.negative(radius, out=radius)
        np.log1p(radius, out=radius)
        radius *= -2.0
        np.sqrt(radius, out=radius)
        angle *= 2.0 * np.pi
        angle = _cosine_and_sine(angle) if fast else np.cos(angle) + np.sin(angle)
        angle *= radius
        np.add(angle[0], angle[1], out=out)
        out /= 2.0


def _cosine_and_sine(angle: Floats) -> Floats:
    """cos + sin of every element, by torch."""
    import torch  # here, so that planning a job in the web process does not load it

    values = torch.from_numpy(angle)
    return np.asarray(values.cos().add_(values.sin()).numpy())
