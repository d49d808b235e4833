"""What a tenant's key costs each call: opening and sealing a data key, and deriving, with and without memory.

Beside them, in the same run: the same queries with the unwrapping as it was before keys had generations (the root key's
file read and the tenant's key opened at every call). CPU time of this process. Run: python -m tests.bench.vault_keys
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

CALLS, ROUNDS = 300, 5


def main() -> None:
    """Start services of its own, measure in turns, print medians and ratios."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ.update(DATA_DIR=folder, DJANGO_SETTINGS_MODULE="saas.settings", LOG_LEVEL="ERROR")
        os.environ.update(CLOISTER_EMBEDDED="1", CLOISTER_DEMO="0")
        from saas import embedded

        with embedded.temporary() as services:
            os.environ.update(services.environment())
            import django

            django.setup()
            from django.core.management import call_command

            call_command("migrate", database="migrator", verbosity=0, interactive=False)
            measure()


def measure() -> None:
    """The table."""
    from django.conf import settings

    from tenants import actions, vault, vault_keys
    from tenants.models import DataKey, ObjectKey, User
    from tenants.root_keys import FileKey, seal, unseal
    from tenants.scope import scope

    user = User.objects.create_user("bench@example.test", "a-long-password")
    tenant = actions.create_tenant(user, "Bench", "general")
    stored = vault.put(tenant, "upload", b"x")
    key, root = os.urandom(32), FileKey(Path(settings.ROOT_KEY_FILE))
    place = f"cloister/tenant-key/v1|{tenant.pk}"
    wrapped_key = seal(key, key=root.key(), bound=place)
    wrapped = seal(os.urandom(32), key=key, bound="here")

    def before_open() -> None:
        ObjectKey.objects.of(tenant).select_related("object").get(object=stored)
        DataKey.objects.of(tenant).filter(generation=0).first()
        unseal(wrapped, key=unseal(wrapped_key, key=root.key(), bound=place), bound="here")

    def before_seal() -> None:
        DataKey.objects.of(tenant).filter(generation=0).first()
        seal(bytes(32), key=unseal(wrapped_key, key=root.key(), bound=place), bound="here")

    def before_derive() -> None:
        DataKey.objects.of(tenant).filter(generation=0).first()
        vault_keys._derived(unseal(wrapped_key, key=root.key(), bound=place), "audit")

    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "open a data key": (before_open, lambda: vault.data_key(stored)),
        "seal a data key": (before_seal, lambda: vault.seal_key(tenant, bytes(32), place="here")),
        "derive": (before_derive, lambda: vault.derive(tenant, "audit")),
    }
    print(f"microseconds of CPU a call, median of {ROUNDS} rounds of {CALLS}")
    print(f"{'':18}{'before':>9}{'now':>9}{'ratio':>8}  asked")
    with scope(tenant):
        for name, (old, new) in pairs.items():
            times: list[list[float]] = [[], []]
            for _round in range(ROUNDS):
                for kept, work in zip(times, (old, new), strict=True):
                    kept.append(cost(work))
            first, second = map(statistics.median, times)
            print(f"{name:18}{first:9.0f}{second:9.0f}{second / first:8.2f}  <= 1.05")


def cost(work: Callable[[], object]) -> float:
    """Microseconds of CPU a call."""
    begun = time.process_time()
    for _call in range(CALLS):
        work()
    return (time.process_time() - begun) / CALLS * 1e6


if __name__ == "__main__":
    sys.exit(main())
