import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models

import saas.lib.db
from tenants.scope_sql import Grant, Isolate


class Migration(migrations.Migration):

    dependencies = [
        ('modeling', '0005_recommend_events'),
        ('tenants', '0002_shared_tables'),
    ]

    operations = [
        migrations.CreateModel(
            name='ServedMinutes',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('model', models.CharField(max_length=200)),
                ('route', models.CharField(max_length=16)),
                ('at', models.DateTimeField()),
                ('writer', models.CharField(max_length=24)),
                ('answered', models.BigIntegerField(default=0)),
                ('client_errors', models.BigIntegerField(default=0)),
                ('rejected', models.BigIntegerField(default=0)),
                ('server_errors', models.BigIntegerField(default=0)),
                ('abandoned', models.BigIntegerField(default=0)),
                ('predictions', models.BigIntegerField(default=0)),
                ('tokens_in', models.BigIntegerField(default=0)),
                ('tokens_out', models.BigIntegerField(default=0)),
                ('seconds', models.FloatField(default=0)),
                ('latency', django.contrib.postgres.fields.ArrayField(base_field=models.BigIntegerField(), default=list, size=None)),
                ('first_token', django.contrib.postgres.fields.ArrayField(base_field=models.BigIntegerField(), default=list, size=None)),
                ('tenant', models.ForeignKey(editable=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
            ],
            options={
                'indexes': [models.Index(fields=['at'], name='served_old')],
                'constraints': [models.UniqueConstraint(fields=('tenant', 'model', 'route', 'at', 'writer'), name='served_once')],
            },
        ),
        Isolate("ServedMinutes"),
        Grant("ServedMinutes"),
    ]
