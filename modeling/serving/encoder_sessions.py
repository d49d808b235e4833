"""What runs the encoder's graph on a processor: OpenVINO, in bfloat16 where it has it, or ONNX Runtime."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch

Floats = np.ndarray[Any, np.dtype[np.float32]]


class Session(Protocol):
    """One compiled graph. Not for two threads at once."""

    def bind(self, tables: Mapping[str, torch.Tensor]) -> None:
        """Use these adapter tables from now on; they are read where they lie, never copied."""

    def run(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Floats:
        """The graph's output; valid until the next run."""


class Backend(Protocol):
    """Makes sessions. `half`: adapter tables are bfloat16, and so is the arithmetic."""

    name: str
    half: bool

    def session(self, graph: bytes) -> Session:
        """Compile; raises RuntimeError when the library cannot."""


class OpenVino:
    """OpenVINO on the CPU with `precision` "bf16" or "f32"."""

    def __init__(self, precision: str, *, threads: int) -> None:
        self.name = f"openvino-{precision}"
        self.half = precision == "bf16"
        self._threads = threads
        self._precision = precision

    def session(self, graph: bytes) -> Session:
        """See Backend."""
        settings = {
            "INFERENCE_PRECISION_HINT": self._precision,
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # other processes run on these cores, too
        }
        return _OpenVinoSession(_core().compile_model(_core().read_model(graph), "CPU", settings))


class _OpenVinoSession:
    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self._tables: list[Any] = []

    def bind(self, tables: Mapping[str, torch.Tensor]) -> None:
        self._tables = []
        for name, table in tables.items():
            shared = _openvino_tensor(table)
            self._tables.append((table, shared))  # keeps the memory
            self._request.set_tensor(name, shared)

    def run(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Floats:
        library = _openvino()
        held = {name: library.Tensor(value, shared_memory=True) for name, value in feeds.items()}
        for name, value in held.items():
            self._request.set_tensor(name, value)
        self._request.infer()
        found: Floats = self._request.get_output_tensor(0).data
        return found


def _openvino_tensor(table: torch.Tensor) -> Any:
    library = _openvino()
    if table.dtype != torch.bfloat16:
        return library.Tensor(table.numpy(), shared_memory=True)
    bits = table.view(torch.int16).numpy()
    return library.Tensor(bits, library.Shape(bits.shape), library.Type.bf16)


@functools.cache
def _openvino() -> Any:
    """The library, without its usage reports: Core never sends any, and the package that could is kept out."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


@functools.cache
def _core() -> Any:
    return _openvino().Core()


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 (avx512_bf16 or amx), in OpenVINO's judgement."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OnnxRuntime:
    """ONNX Runtime on the CPU, float32."""

    name = "onnxruntime"
    half = False

    def __init__(self, *, threads: int) -> None:
        self._threads = threads

    def session(self, graph: bytes) -> Session:
        """See Backend."""
        onnxruntime = _onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self._threads, 1
        options.log_severity_level = 3
        with _as_runtime_error():
            made = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return _OnnxSession(made)


class _OnnxSession:
    def __init__(self, session: Any) -> None:
        self._session = session
        self._tables: dict[str, np.ndarray[Any, Any]] = {}

    def bind(self, tables: Mapping[str, torch.Tensor]) -> None:
        self._tables = {name: table.numpy() for name, table in tables.items()}

    def run(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Floats:
        with _as_runtime_error():
            found: Floats = self._session.run(None, {**feeds, **self._tables})[0]
        return found


@functools.cache
def _onnxruntime() -> Any:
    import onnxruntime

    return onnxruntime


@contextmanager
def _as_runtime_error() -> Iterator[None]:
    """Its errors have nothing in common but this: they are defined in its binding."""
    state = _onnxruntime().capi.onnxruntime_pybind11_state
    kinds = (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NotImplemented,
    )
    try:
        yield
    except (*kinds, state.RuntimeException, state.EPFail) as error:
        raise RuntimeError(str(error)) from error
