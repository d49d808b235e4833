"""Tombstones: what was destroyed for good, so that a restored backup can be told again."""

import django.db.models.deletion
import saas.lib.db
from django.db import migrations, models
from tenants.scope_sql import APPEND_ONLY, Grant, Isolate


class Migration(migrations.Migration):

    dependencies = [
        ('tenants', '0003_keys'),
    ]

    operations = [
        migrations.CreateModel(
            name='Tombstone',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(max_length=20)),
                ('reference', models.CharField(blank=True, max_length=200)),
                ('at', models.DateTimeField()),
                ('tenant', models.ForeignKey(editable=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
            ],
            options={
                'indexes': [models.Index(fields=['at'], name='tombstone_at')],
            },
        ),
        migrations.CreateModel(
            name='StoreSweep',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('at', models.DateTimeField()),
                ('objects_seen', models.BigIntegerField()),
                ('removed', models.BigIntegerField()),
                ('left', models.BigIntegerField()),
                ('missing', models.BigIntegerField()),
                ('missing_ids', models.JSONField(default=list)),
                ('tenant', models.ForeignKey(editable=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('tenant',), name='one_sweep_per_tenant')],
            },
        ),
        Isolate("Tombstone", "StoreSweep"),
        Grant("Tombstone", app=APPEND_ONLY, operator="SELECT"),
        Grant("StoreSweep", operator="SELECT"),
    ]
