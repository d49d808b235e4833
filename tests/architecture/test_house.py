"""The house's rules as tests: floors named, one line per module, small files, no pickle, no banned words, no seeds."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
APPS = ("saas", "tenants", "billing", "modeling")
MODULES = sorted(
    path
    for app in APPS
    for path in (ROOT / app).rglob("*.py")
    if "migrations" not in path.parts and path.read_text().strip()
)
FORBIDDEN_CALLS = {
    "torch.load",
    "pickle.load",
    "pickle.loads",
    "joblib.load",
    "torch.manual_seed",
    "random.seed",
}
FORBIDDEN_NAMES = re.compile(r"(utils|helpers|common|manager|service|handler)\.py$")


def calls_in(source: str) -> set[str]:
    """Dotted names of everything called in a source text."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            found.add(ast.unparse(node.func))
            if any(word.arg == "allow_pickle" for word in node.keywords):
                found.add("allow_pickle")
    return found


def test_every_wiring_module_is_on_a_floor() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    floors = next(row for row in contracts if row["type"] == "layers")["layers"]
    named = {name.strip().strip("()") for floor in floors for name in floor.replace(":", "|").split("|")}
    present = {path.stem for path in (ROOT / "saas").glob("*.py") if path.stem not in {"__init__", "apps"}}
    assert {f"saas.{name}" for name in present} - named == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_are_small_named_and_described(path: Path) -> None:
    text = path.read_text()
    first = ast.get_docstring(ast.parse(text)) or ""
    assert first.splitlines()[:1], "the module needs a line that says what it does"
    assert text.count("\n") <= 400
    assert not FORBIDDEN_NAMES.search(path.name)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_unpickles_and_nothing_is_seeded(path: Path) -> None:
    found = calls_in(path.read_text())
    if "samples" in path.parts:
        found -= {"random.seed"}
    assert not found & (FORBIDDEN_CALLS | {"allow_pickle"})


def test_the_search_for_forbidden_calls_finds_them() -> None:
    assert calls_in("import torch\ntorch.load(x)\nnumpy.load(y, allow_pickle=True)") >= {
        "torch.load",
        "allow_pickle",
    }


def test_the_workshop_loads_without_django() -> None:
    import subprocess
    import sys

    script = (
        "import sys, modeling.core.accounting, modeling.core.types, modeling.packs;"
        "bad = {'django', 'celery', 'psycopg', 'torch'} & {name.split('.')[0] for name in sys.modules};"
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
