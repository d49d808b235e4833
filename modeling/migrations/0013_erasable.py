"""Rows that only ever grew, or were kept, may be deleted once their tenant's keys are destroyed."""

from django.db import migrations

from tenants.scope_sql import Erasable


class Migration(migrations.Migration):

    dependencies = [
        ('modeling', '0012_holds'),
        ('tenants', '0006_erasure'),
    ]

    operations = [
        Erasable("JobEvent", "PrivacyEntry", "Job", "PrivacyAccount", "LedgerHead", "ModelVersion"),
        Erasable("Batch", "Upload", "VersionChange", "Erasure", "LegalHold"),
    ]
