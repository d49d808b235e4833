"""Cached tensors of many conversations: in memory up to a limit, the rest in an encrypted nameless file."""

from __future__ import annotations

import os
import tempfile
import weakref
from typing import IO

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CACHE_BYTES = 1 << 30  # of memory; what is beyond goes to the file
_NONCE_BYTES = 12


class SealedStore:
    """Tensors by number. The file's key lives in this object alone, and the file has no name: both end with it."""

    def __init__(self, *, limit_bytes: int = CACHE_BYTES) -> None:
        self._limit = limit_bytes
        self._held: dict[int, torch.Tensor] = {}
        self._spilled: dict[int, tuple[int, int, torch.dtype, tuple[int, ...], torch.device]] = {}
        self._key = AESGCM(AESGCM.generate_key(bit_length=256))
        self._file: IO[bytes] | None = None
        self.memory_bytes = 0

    @property
    def file_bytes(self) -> int:
        """Bytes in the file."""
        return sum(size for _, size, *_ in self._spilled.values())

    def put(self, number: int, tensor: torch.Tensor) -> None:
        """Keep a tensor; a number is used once."""
        size = tensor.numel() * tensor.element_size()
        if self.memory_bytes + size <= self._limit:
            self._held[number] = tensor
            self.memory_bytes += size
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="cloister-")  # noqa: SIM115 - as long as the store
            weakref.finalize(self, self._file.close)
        plain = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._key.encrypt(nonce, plain, str(number).encode())
        at = self._file.seek(0, os.SEEK_END)
        self._file.write(sealed)
        self._spilled[number] = (at, len(sealed), tensor.dtype, tuple(tensor.shape), tensor.device)

    def get(self, number: int) -> torch.Tensor:
        """The tensor; raises KeyError for an unknown number, InvalidTag when the file was changed."""
        held = self._held.get(number)
        if held is not None:
            return held
        at, size, dtype, shape, device = self._spilled[number]
        assert self._file is not None  # something was spilled
        self._file.seek(at)
        sealed = self._file.read(size)
        plain = self._key.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], str(number).encode())
        flat = torch.from_numpy(np.frombuffer(bytearray(plain), dtype=np.uint8))
        return flat.view(dtype).view(shape).to(device)
