"""What the supervisor starts again and when; and which engines belong to this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modeling.serving.addresses import settings_places
from saas.processes import wait_until
from saas.stack import Stack
from saas.supervisor import BACKOFF_SECONDS, Child, Supervisor


def waits(folder: Path, seconds: str, *, deaths: int, steady_seconds: float) -> list[str]:
    """What is said at each death of a program that lives so long."""
    said: list[str] = []
    supervisor = Supervisor(cwd=folder, say=said.append)
    command = ["/bin/sh", "-c", f"sleep {seconds}"]
    child = Child(
        "it", command, {"PATH": os.environ["PATH"]}, folder / "log", 1, steady_seconds=steady_seconds
    )
    supervisor.start(child)

    def has_died() -> bool:
        supervisor.look_after()
        return len(said) >= deaths

    try:
        assert wait_until(has_died, seconds=30, pause=0.05)
    finally:
        supervisor.stop()
    return [line.split("again in ")[1].split(" s.")[0] for line in said]


def test_who_served_is_back_at_once(tmp_path: Path) -> None:
    assert waits(tmp_path, "0.4", deaths=3, steady_seconds=0.3) == ["0.3"] * 3


def test_who_dies_at_once_waits_longer_each_time(tmp_path: Path) -> None:
    assert waits(tmp_path, "0", deaths=3, steady_seconds=60.0) == ["0.3", "0.6", "1.2"]
    assert max(BACKOFF_SECONDS[:5]) <= 5.0


@pytest.mark.parametrize(
    ("text", "is_split", "expected"),
    [
        ("", False, {"engine": "engine.sock"}),
        (
            "",
            True,
            {"engine minilm-l6": "engine-minilm-l6.sock", "engine smollm2-135m": "engine-smollm2-135m.sock"},
        ),
        ("smollm2-135m=openai+http://chat:8000/v1", True, {"engine minilm-l6": "engine-minilm-l6.sock"}),
        ("smollm2-135m=openai+http://chat:8000/v1", False, {"engine": "engine.sock"}),
        ("*=tls://models.internal:7300", False, {}),
    ],
)
def test_the_engines_of_this_machine(
    tmp_path: Path, text: str, is_split: bool, expected: dict[str, str]
) -> None:
    socket = tmp_path / "engine.sock"
    places = settings_places(text, socket, is_split)
    stack = Stack(tmp_path, tmp_path, tmp_path, socket, places, "127.0.0.1", 8000, {})
    commands = {child.name: [str(word) for word in child.command] for child in stack.engines()}
    sockets = {name: Path(words[words.index("--socket") + 1]).name for name, words in commands.items()}
    assert sockets == expected
    for name, words in commands.items():
        assert name == "engine" or words[-2:] == ["--bases", name.removeprefix("engine ")]
