"""Joined objects: a large upload's parts stand for its file without a copy."""

import django.db.models.deletion
import saas.lib.db
import tenants.scope
from django.db import migrations, models
from tenants.scope_sql import Grant, Isolate


class Migration(migrations.Migration):

    dependencies = [
        ('tenants', '0004_objects'),
    ]

    operations = [
        migrations.CreateModel(
            name='JoinedPart',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('place', models.PositiveIntegerField()),
                ('part', tenants.scope.TenantForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.vaultobject')),
                ('tenant', models.ForeignKey(editable=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
                ('whole', tenants.scope.TenantForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.vaultobject')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('tenant', 'whole', 'place'), name='joined_part_place')],
            },
        ),
        Isolate("JoinedPart"),
        Grant("JoinedPart"),
    ]
