import django.db.models.deletion
import modeling.models.retention
import saas.lib.db
import tenants.scope
from django.db import migrations, models
from tenants.scope_sql import Grant, Isolate

KINDS = [
    ('training', 'Records of people'),
    ('catalogue', 'Catalogues'),
    ('versions', 'Former versions of datasets'),
    ('batch', 'Requests and answers of batches'),
]


class Migration(migrations.Migration):

    dependencies = [
        ('modeling', '0011_dataset_chain'),
    ]

    operations = [
        migrations.CreateModel(
            name='RetentionRule',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=KINDS, max_length=12)),
                ('days', models.PositiveIntegerField()),
                ('changed_at', models.DateTimeField(auto_now=True)),
                ('tenant', models.ForeignKey(editable=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('tenant', 'kind'), name='one_retention_rule_per_kind')],
            },
        ),
        migrations.CreateModel(
            name='LegalHold',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('public_id', models.CharField(default=modeling.models.retention.hold_id, editable=False, max_length=40)),
                ('reason', models.CharField(max_length=300)),
                ('placed_by', models.CharField(max_length=200)),
                ('placed_at', models.DateTimeField(auto_now_add=True)),
                ('released_by', models.CharField(blank=True, max_length=200)),
                ('released_at', models.DateTimeField(null=True)),
                ('release_reason', models.CharField(blank=True, max_length=300)),
                ('dataset', tenants.scope.TenantForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='modeling.dataset')),
                ('file', tenants.scope.TenantForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='modeling.file')),
                ('tenant', models.ForeignKey(editable=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
            ],
            options={
                'constraints': [
                    models.UniqueConstraint(fields=('tenant', 'public_id'), name='legal_hold_public_id'),
                    models.CheckConstraint(condition=models.Q(('file', None), ('dataset', None), _connector='OR'), name='legal_hold_of_one_thing'),
                ],
            },
        ),
        Isolate("RetentionRule"),
        Isolate("LegalHold"),
        Grant("RetentionRule"),
        Grant("LegalHold", app="SELECT, INSERT, UPDATE"),
    ]
