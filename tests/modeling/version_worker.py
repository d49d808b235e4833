"""A worker that makes versions, to be killed: reads `tenant change window` a line and halts at the window.

Windows: `reading` (in the middle of the rows), `sealed` (all is written, nothing committed), `committing` (inside the
transaction, after everything), `after` (committed), `naive` (the control: the row comes before the rows). Prints
`pid`, `here` at the window, `end` with a status.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import django

django.setup()

from modeling.actions import version_making  # noqa: E402
from modeling.actions.version_writing import VersionWriting  # noqa: E402
from modeling.models import DatasetVersion  # noqa: E402
from tenants.scope import scope  # noqa: E402


def say(*words: object) -> None:
    """One line to the test."""
    os.write(1, (" ".join(str(word) for word in words) + "\n").encode())


def stay() -> None:
    """Wait to be killed."""
    say("here")
    time.sleep(120)


def halt_at(window: str) -> None:
    """Make this process wait at the window."""
    if window == "reading":
        write = VersionWriting.write

        def halting(groups: Iterable[Any]) -> Iterator[Any]:
            for number, group in enumerate(groups):
                if number == 20:
                    stay()
                yield group

        VersionWriting.write = lambda self, groups: write(self, halting(groups))  # type: ignore[method-assign]
    elif window == "sealed":
        require = version_making._require_difference

        def halting_check(joining: Any) -> None:
            require(joining)
            stay()

        version_making._require_difference = halting_check
    elif window == "committing":
        commit = version_making._commit

        def halting_commit(*parts: Any) -> None:
            commit(*parts)
            stay()

        setattr(version_making, "_commit", halting_commit)  # noqa: B010 - a name that mypy need not compare


def naive(tenant_id: str, change_id: str) -> None:
    """What must go wrong: the version is there before its rows are."""
    making = version_making.claim(tenant_id, change_id)
    assert making is not None
    change = making.change
    with scope(making.tenant):
        DatasetVersion.objects.of(making.tenant).create(
            dataset=change.dataset,
            number=change.number,
            rows=0,
            units=0,
            parent=change.base,
            mode=change.mode,
        )
    stay()


def main() -> None:
    """Serve until the test closes the pipe."""
    say("ready")
    for line in sys.stdin:
        tenant, change, window = line.split()
        child = os.fork()
        if child == 0:
            if window == "naive":
                naive(tenant, change)
            halt_at(window)
            version_making.make(tenant, change)
            if window == "after":
                stay()
            os._exit(0)
        say("pid", child)
        _pid, status = os.waitpid(child, 0)
        say("end", status)


if __name__ == "__main__":
    main()
