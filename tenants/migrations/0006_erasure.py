"""Erasing a whole tenant: the request, the slugs of the erased, and the right to delete what otherwise only grows."""

import django.db.models.deletion
from django.db import migrations, models

import saas.lib.db
from tenants.scope_sql import Erasable, Grant, Isolate

OPERATOR_SEES = (
    "SELECT (id, tenant_id, state, by_kind, requested_at, due_at, shredded_at, erased_at, objects_at, engines_at, "
    "billing_at, looked_at, trouble)"
)


class Migration(migrations.Migration):

    dependencies = [
        ('tenants', '0005_joined'),
    ]

    operations = [
        migrations.AddField(
            model_name='tenant',
            name='erase_at',
            field=models.DateTimeField(null=True),
        ),
        migrations.AlterField(
            model_name='tenant',
            name='state',
            field=models.CharField(choices=[('active', 'active'), ('suspended', 'suspended'), ('erased', 'erased')], default='active', max_length=12),
        ),
        migrations.CreateModel(
            name='ReservedSlug',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('digest', models.CharField(max_length=64, unique=True)),
            ],
        ),
        migrations.CreateModel(
            name='TenantErasure',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('state', models.CharField(choices=[('requested', 'requested'), ('withdrawn', 'withdrawn'), ('running', 'being erased'), ('erased', 'erased')], default='requested', max_length=12)),
                ('by_kind', models.CharField(max_length=10)),
                ('requested_by', models.CharField(blank=True, max_length=200)),
                ('reason', models.CharField(blank=True, max_length=300)),
                ('requested_at', models.DateTimeField(auto_now_add=True)),
                ('due_at', models.DateTimeField()),
                ('shredded_at', models.DateTimeField(null=True)),
                ('erased_at', models.DateTimeField(null=True)),
                ('objects_at', models.DateTimeField(null=True)),
                ('engines_at', models.DateTimeField(null=True)),
                ('billing_at', models.DateTimeField(null=True)),
                ('looked_at', models.DateTimeField(null=True)),
                ('trouble', models.CharField(blank=True, max_length=300)),
                ('evidence', models.JSONField(default=dict)),
                ('tenant', models.ForeignKey(editable=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
            ],
            options={
                'constraints': [
                    models.UniqueConstraint(condition=models.Q(('state__in', ('requested', 'running'))), fields=('tenant',), name='one_open_tenant_erasure'),
                ],
            },
        ),
        Isolate("TenantErasure"),
        Grant("TenantErasure", app="SELECT, INSERT, UPDATE", operator=OPERATOR_SEES),
        Grant("ReservedSlug", app="SELECT, INSERT"),
        Erasable("AuditEntry"),
    ]
