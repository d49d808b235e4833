"""Generations of a tenant's key, keys of tenants' own, and rotations in the background.

A row from before is generation 0: it derives what it always derived, and opens what it wrapped until that is wrapped
by a newer generation.
"""

from typing import Any

import django.db.models.deletion
from django.db import migrations, models

import saas.lib.db
from tenants.scope_sql import Grant, Isolate


class Migration(migrations.Migration):

    dependencies = [
        ('tenants', '0002_shared_tables'),
    ]

    operations: list[Any] = [
        migrations.RemoveConstraint(model_name='datakey', name='one_tenant_key'),
        migrations.AddField(
            model_name='datakey',
            name='generation',
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.AddField(
            model_name='datakey',
            name='is_refused',
            field=models.BooleanField(default=False),
        ),
        migrations.AddConstraint(
            model_name='datakey',
            constraint=models.UniqueConstraint(fields=('tenant', 'generation'), name='one_tenant_key'),
        ),
        migrations.CreateModel(
            name='OwnKey',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('reference', models.CharField(max_length=300)),
                ('root_id', models.CharField(max_length=64)),
                ('state', models.CharField(choices=[('taking', 'being taken into use'), ('active', 'in use'), ('left', 'left')], default='taking', max_length=8)),
                ('refused_at', models.DateTimeField(null=True)),
                ('reason', models.CharField(blank=True, max_length=300)),
                ('checked_at', models.DateTimeField(null=True)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('tenant', models.ForeignKey(editable=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
            ],
            options={
                'constraints': [
                    models.UniqueConstraint(fields=('tenant', 'root_id'), name='own_key_once'),
                    models.UniqueConstraint(condition=models.Q(('state', 'left'), _negated=True), fields=('tenant',), name='one_own_key_in_use'),
                ],
            },
        ),
        migrations.CreateModel(
            name='KeyRotation',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('tenant', 'tenant key'), ('data', 'data keys')], max_length=8)),
                ('state', models.CharField(choices=[('running', 'running'), ('done', 'done')], default='running', max_length=8)),
                ('object_kind', models.CharField(blank=True, max_length=20)),
                ('object_id', models.UUIDField(null=True)),
                ('total', models.PositiveIntegerField(default=0)),
                ('done', models.PositiveIntegerField(default=0)),
                ('table', models.PositiveSmallIntegerField(default=0)),
                ('after', models.UUIDField(null=True)),
                ('trouble', models.CharField(blank=True, max_length=300)),
                ('started_by', models.CharField(max_length=200)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('moved_at', models.DateTimeField(auto_now=True)),
                ('finished_at', models.DateTimeField(null=True)),
                ('tenant', models.ForeignKey(editable=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
            ],
            options={
                'constraints': [
                    models.UniqueConstraint(condition=models.Q(('state', 'running')), fields=('tenant',), name='one_rotation_at_once'),
                ],
            },
        ),
        Isolate("OwnKey", "KeyRotation"),
        Grant("OwnKey", operator="SELECT (id, tenant_id, state)"),  # whose to ask, and nothing of what they are
        Grant("KeyRotation", operator="SELECT (id, tenant_id, state, moved_at)"),
    ]
