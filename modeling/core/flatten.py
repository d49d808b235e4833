"""One Python file out of ours: named functions and what they need, so that a download computes as the service does."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

OURS = "modeling.core"


@dataclass(frozen=True)
class _Source:
    """A parsed module: where each top-level name is defined, and what it imports."""

    lines: list[str]
    defined: dict[str, ast.stmt]
    imported: dict[str, tuple[str, str, str]]  # local name -> (module, name or "", import line)


@dataclass
class _Flat:
    imports: set[str] = field(default_factory=set)
    parts: list[str] = field(default_factory=list)
    taken: dict[str, str] = field(default_factory=dict)  # name -> the module it came from


def flatten(module: str, name: str = "main", *, title: str) -> str:
    """The source of a file that defines `name` of `module` and runs it as a script.

    Raises ValueError when two modules define the same name differently: a flat file has one name space.
    """
    flat = _Flat()
    _take(flat, module, name)
    header = f'"""{title}"""\n\nfrom __future__ import annotations\n\n' + "\n".join(sorted(flat.imports))
    ending = f'if __name__ == "__main__":\n    raise SystemExit({name}())\n'
    return "\n\n\n".join([header, *flat.parts, ending])


def _take(flat: _Flat, module: str, name: str) -> None:
    """Add a name after everything it needs."""
    if flat.taken.get(name, module) != module:
        raise ValueError(f"{name} is defined by {flat.taken[name]} and by {module}")
    if name in flat.taken:
        return
    flat.taken[name] = module
    source = _source(module)
    node = source.defined[name]
    for used in _names(node):
        if used in source.imported:
            origin, original, line = source.imported[used]
            if origin.startswith(OURS) and original:
                if original != used:
                    raise ValueError(f"{module} renames {original} to {used}")
                _take(flat, origin, original)
            else:
                flat.imports.add(line)
        elif used in source.defined:
            _take(flat, module, used)
    part = _text(source.lines, node)
    if part not in flat.parts:  # one line may define several names
        flat.parts.append(part)


def _names(node: ast.stmt) -> list[str]:
    """Every plain name inside, in order; annotations are text at run time but name types that readers look up."""
    return list(dict.fromkeys(inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)))


def _text(lines: list[str], node: ast.stmt) -> str:
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(one.lineno for one in decorators)])
    return "\n".join(lines[first - 1 : node.end_lineno])


@lru_cache(maxsize=64)
def _source(module: str) -> _Source:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"there is no module {module}")
    text = Path(spec.origin).read_text()
    defined: dict[str, ast.stmt] = {}
    imported: dict[str, tuple[str, str, str]] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined[node.name] = node
        elif isinstance(node, ast.Assign):
            stored = [inner for target in node.targets for inner in ast.walk(target)]
            defined |= {inner.id: node for inner in stored if isinstance(inner, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            defined[node.target.id] = node
        elif isinstance(node, ast.Import):
            imported |= {_local(one): (one.name, "", f"import {_written(one)}") for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module != "__future__":
            line = f"from {node.module} import "
            imported |= {_local(one): (node.module, one.name, line + _written(one)) for one in node.names}
    return _Source(text.splitlines(), defined, imported)


def _local(name: ast.alias) -> str:
    return name.asname or name.name.split(".")[0]


def _written(name: ast.alias) -> str:
    return f"{name.name} as {name.asname}" if name.asname else name.name
