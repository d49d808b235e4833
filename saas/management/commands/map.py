"""Writes the README's map of the tree from the first lines of the modules' docstrings, or checks it for drift."""

from __future__ import annotations

import ast
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

BEGIN, END = "<!-- map -->", "<!-- /map -->"
ROOTS = ("saas", "tenants", "billing", "modeling")
UNLISTED = {"migrations", "__pycache__"}


class Command(BaseCommand):
    """`manage.py map`, `manage.py map --check`."""

    help = "Write the map into README.md; --check only compares."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--check", action="store_true", help="fail when README.md's map is out of date")

    def handle(self, *args: Any, **options: Any) -> None:
        readme = Path(settings.BASE_DIR) / "README.md"
        text = readme.read_text()
        try:
            before, rest = text.split(BEGIN, 1)
            _, after = rest.split(END, 1)
        except ValueError:
            raise CommandError(f"README.md needs the lines {BEGIN} and {END}.") from None
        fresh = f"{before}{BEGIN}\n```\n{draw(Path(settings.BASE_DIR))}\n```\n{END}{after}"
        if options["check"]:
            if fresh != text:
                raise CommandError("The README's map is out of date: run `make map`.")
            return
        readme.write_text(fresh)
        self.stdout.write(draw(Path(settings.BASE_DIR)))


def draw(base: Path) -> str:
    """The map: every module with the first line of its docstring, packages as headings."""
    return "\n".join(line for root in ROOTS for line in _folder(base / root, 0))


def _folder(folder: Path, depth: int) -> list[str]:
    lines = [_line(f"{folder.name}/", first_line(folder / "__init__.py"), depth)]
    parts = [path for path in sorted(folder.iterdir()) if path.name not in UNLISTED]
    modules = [path for path in parts if path.suffix == ".py" and path.name != "__init__.py"]
    lines += [_line(path.name, first_line(path), depth + 1) for path in modules]
    for path in parts:
        if path.is_dir() and any(path.glob("*.py")):
            lines += _folder(path, depth + 1)
    return lines


def _line(name: str, text: str, depth: int) -> str:
    return f"{'  ' * depth + name:<34}{text}".rstrip()


def first_line(file: Path) -> str:
    """The first line of a module's docstring, or nothing."""
    if not file.exists():
        return ""
    docstring = ast.get_docstring(ast.parse(file.read_text()))
    return docstring.splitlines()[0] if docstring else ""
