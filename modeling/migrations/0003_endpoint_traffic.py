import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models

import saas.lib.db
import tenants.scope
from tenants.scope_sql import Grant, Isolate

# Under FORCE the owner, too, would see no row; the lock of ALTER TABLE keeps everybody else out until the commit.
NUMBER_CHANGES = """
ALTER TABLE modeling_endpointchange NO FORCE ROW LEVEL SECURITY;
UPDATE modeling_endpointchange c SET number = n.number
FROM (SELECT id, row_number() OVER (PARTITION BY endpoint_id ORDER BY id) AS number FROM modeling_endpointchange) n
WHERE n.id = c.id;
ALTER TABLE modeling_endpointchange FORCE ROW LEVEL SECURITY;
"""
BIND_TO_TENANT = "".join(
    f"ALTER TABLE {table} ADD CONSTRAINT {table}_{column}_in_tenant FOREIGN KEY (tenant_id, {column}) "
    "REFERENCES modeling_modelversion (tenant_id, id) DEFERRABLE INITIALLY DEFERRED;"
    for table in ("modeling_endpoint", "modeling_endpointchange")
    for column in ("canary_id", "shadow_id")
)


class Migration(migrations.Migration):

    dependencies = [
        ('modeling', '0002_private_training'),
    ]

    operations = [
        migrations.AddField(
            model_name='endpointchange',
            name='number',
            field=models.PositiveIntegerField(null=True),
        ),
        migrations.RunSQL(NUMBER_CHANGES, migrations.RunSQL.noop),
        migrations.AlterField(
            model_name='endpointchange',
            name='number',
            field=models.PositiveIntegerField(),
        ),
        migrations.AddField(
            model_name='endpoint',
            name='personal_data',
            field=models.CharField(choices=[('off', 'Left as it is'), ('note', 'Noted in the answer'), ('mask', 'Masked'), ('block', 'Request refused')], default='off', max_length=8),
        ),
        migrations.AddField(
            model_name='endpoint',
            name='log_days',
            field=models.PositiveSmallIntegerField(default=0),
        ),
        migrations.AddField(
            model_name='endpoint',
            name='canary',
            field=tenants.scope.TenantForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='modeling.modelversion'),
        ),
        migrations.AddField(
            model_name='endpoint',
            name='canary_percent',
            field=models.PositiveSmallIntegerField(default=0),
        ),
        migrations.AddField(
            model_name='endpoint',
            name='shadow',
            field=tenants.scope.TenantForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='modeling.modelversion'),
        ),
        migrations.AddField(
            model_name='endpointchange',
            name='personal_data',
            field=models.CharField(choices=[('off', 'Left as it is'), ('note', 'Noted in the answer'), ('mask', 'Masked'), ('block', 'Request refused')], default='off', max_length=8),
        ),
        migrations.AddField(
            model_name='endpointchange',
            name='log_days',
            field=models.PositiveSmallIntegerField(default=0),
        ),
        migrations.AddField(
            model_name='endpointchange',
            name='canary',
            field=tenants.scope.TenantForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='modeling.modelversion'),
        ),
        migrations.AddField(
            model_name='endpointchange',
            name='canary_percent',
            field=models.PositiveSmallIntegerField(default=0),
        ),
        migrations.AddField(
            model_name='endpointchange',
            name='shadow',
            field=tenants.scope.TenantForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='modeling.modelversion'),
        ),
        migrations.AddField(
            model_name='endpointchange',
            name='kind',
            field=models.CharField(choices=[('point', 'moved'), ('split', 'split'), ('shadow', 'shadow'), ('promote', 'promoted'), ('rollback', 'rolled back'), ('rules', 'rules')], default='point', max_length=10),
        ),
        migrations.AddField(
            model_name='endpointchange',
            name='restores',
            field=models.PositiveIntegerField(null=True),
        ),
        migrations.AddConstraint(
            model_name='endpoint',
            constraint=models.CheckConstraint(condition=models.Q(('personal_data__in', ['off', 'note', 'mask', 'block'])), name='endpoint_rule_known'),
        ),
        migrations.AddConstraint(
            model_name='endpoint',
            constraint=models.CheckConstraint(condition=models.Q(('log_days__lte', 365)), name='endpoint_kept_a_year_at_most'),
        ),
        migrations.AddConstraint(
            model_name='endpoint',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('canary', None), ('canary_percent', 0)), models.Q(('canary__isnull', False), ('canary_percent__gte', 1), ('canary_percent__lte', 99)), _connector='OR'), name='endpoint_canary_share'),
        ),
        migrations.AddConstraint(
            model_name='endpointchange',
            constraint=models.CheckConstraint(condition=models.Q(('personal_data__in', ['off', 'note', 'mask', 'block'])), name='endpointchange_rule_known'),
        ),
        migrations.AddConstraint(
            model_name='endpointchange',
            constraint=models.CheckConstraint(condition=models.Q(('log_days__lte', 365)), name='endpointchange_kept_a_year_at_most'),
        ),
        migrations.AddConstraint(
            model_name='endpointchange',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('canary', None), ('canary_percent', 0)), models.Q(('canary__isnull', False), ('canary_percent__gte', 1), ('canary_percent__lte', 99)), _connector='OR'), name='endpointchange_canary_share'),
        ),
        migrations.AddConstraint(
            model_name='endpointchange',
            constraint=models.UniqueConstraint(fields=('tenant', 'endpoint', 'number'), name='endpoint_change_number'),
        ),
        migrations.RunSQL(BIND_TO_TENANT, migrations.RunSQL.noop),
        migrations.CreateModel(
            name='DefaultRules',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('personal_data', models.CharField(choices=[('off', 'Left as it is'), ('note', 'Noted in the answer'), ('mask', 'Masked'), ('block', 'Request refused')], default='off', max_length=8)),
                ('log_days', models.PositiveSmallIntegerField(default=0)),
                ('tenant', models.ForeignKey(editable=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
            ],
        ),
        migrations.AddConstraint(
            model_name='defaultrules',
            constraint=models.CheckConstraint(condition=models.Q(('personal_data__in', ['off', 'note', 'mask', 'block'])), name='defaultrules_rule_known'),
        ),
        migrations.AddConstraint(
            model_name='defaultrules',
            constraint=models.CheckConstraint(condition=models.Q(('log_days__lte', 365)), name='defaultrules_kept_a_year_at_most'),
        ),
        migrations.AddConstraint(
            model_name='defaultrules',
            constraint=models.UniqueConstraint(fields=('tenant',), name='default_rules_once'),
        ),
        migrations.CreateModel(
            name='ShadowDay',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('day', models.DateField()),
                ('requests', models.BigIntegerField(default=0)),
                ('compared', models.BigIntegerField(default=0)),
                ('agreed', models.BigIntegerField(default=0)),
                ('failed', models.BigIntegerField(default=0)),
                ('dropped', models.BigIntegerField(default=0)),
                ('served_latency', django.contrib.postgres.fields.ArrayField(base_field=models.BigIntegerField(), default=list, size=None)),
                ('shadow_latency', django.contrib.postgres.fields.ArrayField(base_field=models.BigIntegerField(), default=list, size=None)),
                ('endpoint', tenants.scope.TenantForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='modeling.endpoint')),
                ('shadow', tenants.scope.TenantForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='modeling.modelversion')),
                ('tenant', models.ForeignKey(editable=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
            ],
        ),
        migrations.AddConstraint(
            model_name='shadowday',
            constraint=models.UniqueConstraint(fields=('tenant', 'endpoint', 'shadow', 'day'), name='shadow_day_once'),
        ),
        migrations.CreateModel(
            name='PredictionKey',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('day', models.DateField()),
                ('wrapped', models.BinaryField()),
                ('endpoint', tenants.scope.TenantForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='modeling.endpoint')),
                ('tenant', models.ForeignKey(editable=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
            ],
        ),
        migrations.AddConstraint(
            model_name='predictionkey',
            constraint=models.UniqueConstraint(fields=('tenant', 'endpoint', 'day'), name='prediction_key_once', nulls_distinct=False),
        ),
        migrations.CreateModel(
            name='Prediction',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('public_id', models.CharField(max_length=64)),
                ('at', models.DateTimeField()),
                ('request_id', models.CharField(max_length=64)),
                ('route', models.CharField(max_length=32)),
                ('model', models.CharField(max_length=200)),
                ('milliseconds', models.PositiveIntegerField()),
                ('sealed', models.BinaryField()),
                ('key', tenants.scope.TenantForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='modeling.predictionkey')),
                ('tenant', models.ForeignKey(editable=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
            ],
        ),
        migrations.AddIndex(
            model_name='prediction',
            index=models.Index(fields=['tenant', 'key', '-id'], name='prediction_newest'),
        ),
        migrations.AddIndex(
            model_name='prediction',
            index=models.Index(fields=['tenant', 'at'], name='prediction_age'),
        ),
        migrations.AddConstraint(
            model_name='prediction',
            constraint=models.UniqueConstraint(fields=('tenant', 'public_id'), name='prediction_public_id'),
        ),
        Isolate("DefaultRules", "ShadowDay", "PredictionKey", "Prediction"),
        Grant("DefaultRules", "ShadowDay", "PredictionKey", "Prediction"),
    ]
