import django.db.models.deletion
from django.db import migrations, models

import saas.lib.db
from tenants.scope_sql import Grant, Isolate


class Migration(migrations.Migration):

    dependencies = [
        ('modeling', '0009_dataset_schema'),
    ]

    operations = [
        migrations.AddField(model_name='defaultrules', name='personal_kinds', field=models.JSONField(default=dict)),
        migrations.AddField(model_name='endpoint', name='personal_kinds', field=models.JSONField(default=dict)),
        migrations.AddField(model_name='endpointchange', name='personal_kinds', field=models.JSONField(default=dict)),
        migrations.AddField(model_name='file', name='personal_data', field=models.JSONField(default=dict)),
        migrations.AddField(model_name='datasetversion', name='personal_data', field=models.JSONField(default=dict)),
        migrations.CreateModel(
            name='PersonalPolicy',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('entities', models.JSONField(default=dict)),
                ('columns', models.CharField(default='text', max_length=4)),
                ('changed_at', models.DateTimeField(auto_now=True)),
                ('changed_by', models.CharField(blank=True, max_length=200)),
                ('tenant', models.ForeignKey(editable=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('tenant',), name='personal_policy_once'), models.CheckConstraint(condition=models.Q(('columns__in', ('text', 'all'))), name='personal_policy_columns')],
            },
        ),
        Isolate("PersonalPolicy"),
        Grant("PersonalPolicy"),
    ]
