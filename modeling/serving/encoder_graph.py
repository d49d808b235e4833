"""The encoder's layers as one ONNX graph: adapter tables are inputs, each row of a batch gathers its own by slot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

OPSET = 20  # the first with Gelu
IR_VERSION = 10
_PARTS = ("query", "key", "value")

Arrays = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Sizes:
    """What the graph must know of the encoder beside its weights."""

    width: int
    inner: int
    layers: int
    heads: int
    epsilon: float


@dataclass
class _Build:
    """A graph under construction; every value has the name of the node that makes it."""

    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)
    inputs: list[ValueInfoProto] = field(default_factory=list)

    def node(self, kind: str, *inputs: str, name: str, outputs: Sequence[str] = (), **attributes: Any) -> str:
        """Add one node; its first output."""
        made = list(outputs) or [name]
        self.nodes.append(helper.make_node(kind, list(inputs), made, name=name, **attributes))
        return made[0]

    def constant(self, name: str, value: np.ndarray[Any, Any]) -> str:
        """Add one constant; its name."""
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def take(self, name: str, kind: int, *shape: int | str) -> str:
        """Add one input of the graph; its name."""
        self.inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name


def encoder_graph(
    weights: Arrays, sizes: Sizes, *, adapted: Sequence[str] = (), half_tables: bool = False
) -> ModelProto:
    """All layers from the embeddings' output on, over bins of equal length that hold one row or several.

    Inputs: `hidden` [b, t, width] and `bias` [b, 1, t, t], added to the attention's scores: 0 within a row, very
    negative between rows; float32. Output: `out` [b, t, width]. With `adapted` modules also `slots` [b, k] int32, the
    adapters of each bin's rows; `mine` [b, t, k * rank] float32, 1 where the adapter is the place's own, 0 elsewhere;
    and for each module `<module>.A` [s, rank, in] and `<module>.B` [s, out, rank] of any rank, float32 or
    (`half_tables`) bfloat16: a bfloat16 graph would convert a float32 table as a whole at every run.
    """
    build = _Build()
    hidden = build.take("hidden", TensorProto.FLOAT, "b", "t", sizes.width)
    build.take("bias", TensorProto.FLOAT, "b", 1, "t", "t")
    if adapted:
        build.take("slots", TensorProto.INT32, "b", "k")
        build.take("mine", TensorProto.FLOAT, "b", "t", "ranks")
    _shapes(build, sizes)
    layer = _Layer(build, weights, sizes, frozenset(adapted), half_tables)
    for number in range(sizes.layers):
        hidden = layer.add(f"encoder.layer.{number}", hidden)
    build.node("Identity", hidden, name="out")
    output = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["b", "t", sizes.width])
    graph = helper.make_graph(build.nodes, "encoder", build.inputs, [output], build.constants)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="cloister"
    )


def _shapes(build: _Build, sizes: Sizes) -> None:
    each = sizes.width // sizes.heads
    build.constant("split", np.array([0, 0, sizes.heads, each], dtype=np.int64))
    build.constant("join", np.array([0, 0, sizes.width], dtype=np.int64))
    build.constant("scale", np.array(each**-0.5, dtype=np.float32))
    for size in (sizes.width, sizes.inner):
        build.constant(f"side {size}", np.array([0, -1, size], dtype=np.int64))


@dataclass(frozen=True)
class _Layer:
    """Adds layers to a graph."""

    build: _Build
    weights: Arrays
    sizes: Sizes
    adapted: frozenset[str]
    half: bool

    def add(self, name: str, hidden: str) -> str:
        """One layer; its output [b, t, width]."""
        mixed = self._attention(f"{name}.attention", hidden)
        out = self._linear(f"{name}.attention.output.dense", mixed)
        hidden = self._norm(f"{name}.attention.output", hidden, out)
        inner = self._linear(f"{name}.intermediate.dense", hidden)
        inner = self.build.node("Gelu", inner, name=f"{name}.gelu")
        out = self._linear(f"{name}.output.dense", inner)
        return self._norm(f"{name}.output", hidden, out)

    def _attention(self, name: str, hidden: str) -> str:
        node = self.build.node
        shaped = []
        for part, order in zip(_PARTS, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True):
            value = self._linear(f"{name}.self.{part}", hidden)
            value = node("Reshape", value, "split", name=f"{name}.{part}.split")
            shaped.append(node("Transpose", value, name=f"{name}.{part}.turned", perm=order))
        query, key, value = shaped
        scores = node("MatMul", query, key, name=f"{name}.products")
        scores = node("Mul", scores, "scale", name=f"{name}.scaled")
        scores = node("Add", scores, "bias", name=f"{name}.biased")
        shares = node("Softmax", scores, name=f"{name}.shares", axis=-1)
        mixed = node("MatMul", shares, value, name=f"{name}.mixed")
        mixed = node("Transpose", mixed, name=f"{name}.back", perm=[0, 2, 1, 3])
        return node("Reshape", mixed, "join", name=f"{name}.joined")

    def _linear(self, name: str, given: str) -> str:
        """W x + b, and the row's own B A x where the module is adapted."""
        build = self.build
        weight = build.constant(f"{name}.weight", self.weights[f"{name}.weight"].T)
        bias = build.constant(f"{name}.bias", self.weights[f"{name}.bias"])
        out = build.node("MatMul", given, weight, name=f"{name}.product")
        out = build.node("Add", out, bias, name=f"{name}.linear")
        if name not in self.adapted:
            return out
        rows, columns = self.weights[f"{name}.weight"].shape
        down = self._gather(f"{name}.A", "s", "rank", columns)  # [b, k, rank, in]
        down = build.node("Reshape", down, f"side {columns}", name=f"{name}.A.side")
        down = build.node("Transpose", down, name=f"{name}.A.turned", perm=[0, 2, 1])
        up = self._gather(f"{name}.B", "s", rows, "rank")  # [b, k, out, rank]
        up = build.node("Transpose", up, name=f"{name}.B.turned", perm=[0, 1, 3, 2])
        up = build.node("Reshape", up, f"side {rows}", name=f"{name}.B.side")
        low = build.node("MatMul", given, down, name=f"{name}.low")
        low = build.node("Mul", low, "mine", name=f"{name}.own")
        change = build.node("MatMul", low, up, name=f"{name}.change")
        return build.node("Add", out, change, name=f"{name}.adapted")

    def _gather(self, name: str, *shape: int | str) -> str:
        """The bins' own matrices out of an input table: [b, k, shape[1], shape[2]]."""
        build = self.build
        build.take(name, TensorProto.BFLOAT16 if self.half else TensorProto.FLOAT, *shape)
        taken = build.node("Gather", name, "slots", name=f"{name}.taken")
        if self.half:
            taken = build.node("Cast", taken, name=f"{name}.wide", to=TensorProto.FLOAT)
        return taken

    def _norm(self, name: str, hidden: str, change: str) -> str:
        build = self.build
        total = build.node("Add", hidden, change, name=f"{name}.total")
        weight, bias = (
            build.constant(f"{name}.LayerNorm.{kind}", self.weights[f"{name}.LayerNorm.{kind}"])
            for kind in ("weight", "bias")
        )
        return build.node(
            "LayerNormalization",
            total,
            weight,
            bias,
            name=f"{name}.norm",
            axis=-1,
            epsilon=self.sizes.epsilon,
        )
