"""A process that starts jobs at a given moment: one of two that race for the last epsilon.

Reads `tenant file epsilon moment` per line (the moment by the machine's monotonic clock); prints `admitted job-id`, or
`refused code sentence`.
"""

from __future__ import annotations

import sys
import time

import django

django.setup()

from modeling.actions import jobs  # noqa: E402
from modeling.actions.specs import JobSpec, PrivacySpec  # noqa: E402
from saas.lib.errors import Refusal  # noqa: E402
from tenants.audit import SYSTEM  # noqa: E402
from tenants.models import Tenant  # noqa: E402
from tenants.scope import scope  # noqa: E402


def start(tenant_id: str, file_id: str, epsilon: float) -> str:
    """One start, in a transaction of its own, as the API makes it."""
    spec = JobSpec(training_file=file_id, privacy=PrivacySpec(epsilon=epsilon, unit=""))
    try:
        with scope(tenant_id):
            job = jobs.start(Tenant.objects.get(pk=tenant_id), SYSTEM, spec)
    except Refusal as refusal:
        return f"refused {refusal.code} {refusal.message}"
    return f"admitted {job.public_id}"


def main() -> None:
    """Serve races until the test closes the pipe."""
    print("ready", flush=True)
    for line in sys.stdin:
        tenant_id, file_id, epsilon, moment = line.split()
        time.sleep(max(0.0, float(moment) - time.monotonic()))
        print(start(tenant_id, file_id, float(epsilon)), flush=True)


if __name__ == "__main__":
    main()
