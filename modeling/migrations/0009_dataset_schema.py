import django.db.models.deletion
from django.db import migrations, models

import saas.lib.db
import tenants.scope
from tenants.scope_sql import Grant, Isolate


class Migration(migrations.Migration):

    dependencies = [
        ('modeling', '0008_retention'),
    ]

    operations = [
        migrations.AddField(model_name='dataset', name='uses', field=models.JSONField(default=dict)),
        migrations.AddField(model_name='dataset', name='declared', field=models.JSONField(default=dict)),
        migrations.AddField(model_name='dataset', name='declared_at', field=models.DateTimeField(null=True)),
        migrations.CreateModel(
            name='QualityReport',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('state', models.CharField(choices=[('waiting', 'waiting'), ('running', 'running'), ('ready', 'ready'), ('failed', 'failed')], default='waiting', max_length=8)),
                ('percent', models.PositiveSmallIntegerField(default=0)),
                ('epoch', models.PositiveIntegerField(default=0)),
                ('attempts', models.PositiveSmallIntegerField(default=0)),
                ('lease_until', models.DateTimeField(null=True)),
                ('asked_at', models.DateTimeField(auto_now_add=True)),
                ('done_at', models.DateTimeField(null=True)),
                ('compared', tenants.scope.TenantForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='modeling.dataset')),
                ('object', tenants.scope.TenantForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.vaultobject')),
                ('tenant', models.ForeignKey(editable=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
                ('version', tenants.scope.TenantForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='modeling.datasetversion')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('tenant', 'version'), name='one_quality_report')],
            },
        ),
        Isolate("QualityReport"),
        Grant("QualityReport", operator="SELECT"),
    ]
