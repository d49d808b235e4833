"""A worker of batches to be killed: runs slices, small ones, until there is nothing left; says each one's number."""

from __future__ import annotations

import os

import django

django.setup()

from django.conf import settings  # noqa: E402

from modeling.actions import batch_running  # noqa: E402

batch_running.SLICE_LINES = int(os.environ["SLICE_LINES"])
settings.ENGINE_PATIENCE_SECONDS = 2.0


def main() -> None:
    """Run to the end, or until killed."""
    number = 0
    os.write(1, b"ready\n")
    while batch_running.run_next():
        number += 1
        os.write(1, b"slice %d\n" % number)


if __name__ == "__main__":
    main()
