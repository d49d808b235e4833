"""`manage.py up` on a restored database: nobody is served before what was destroyed is destroyed again."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.ops.test_up import ROOT, Stack, stack  # noqa: F401 (a fixture)

pytestmark = pytest.mark.slow

MAKE = """
from datetime import UTC, datetime
from django.conf import settings
from saas.lib import exported
from tenants import actions, tombstones, vault
from tenants.models import User
tenant = actions.create_tenant(User.objects.create_user("a@example.test", "long-enough-1"), "Acme", "medical")
kept, gone = vault.put(tenant, "upload", b"kept"), vault.put(tenant, "upload", b"gone")
now = datetime.now(UTC)
row = tombstones._row(tenant.pk, "object", str(gone.pk), now)
exported.append(settings.TOMBSTONES_DIR, [tombstones._line(row)], at=now)
print(tenant.pk, kept.pk, gone.pk)
"""
LOOK = """
from tenants import vault
from tenants.models import VaultObject
from tenants.scope import scope
for pk in {ids!r}:
    with scope({tenant!r}):
        stored = VaultObject.objects.of({tenant!r}).get(pk=pk)
        try:
            print(vault.get(stored).decode())
        except vault.KeyDestroyed:
            print("destroyed")
"""


def shell(running: Stack, code: str) -> list[str]:
    """What code prints in `manage.py shell` beside the running stack, word by word."""
    command = [sys.executable, "manage.py", "shell", "--no-imports", "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, env=running.environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_what_a_restore_brought_back_is_gone_before_the_first_page(stack: Stack) -> None:  # noqa: F811
    process = stack.start()
    stack.wait_until_well()
    tenant, *ids = shell(stack, MAKE)
    assert shell(stack, LOOK.format(tenant=tenant, ids=ids)) == ["kept", "gone"]
    process.send_signal(signal.SIGINT)
    process.wait(60)
    stack.start()
    stack.wait_until_well()
    assert "1 things destroyed again" in stack.said()
    assert shell(stack, LOOK.format(tenant=tenant, ids=ids)) == ["kept", "destroyed"]
