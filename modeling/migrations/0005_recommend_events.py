import django.db.models.deletion
from django.db import migrations, models

import saas.lib.db
from tenants.scope_sql import Grant, Isolate


class Migration(migrations.Migration):

    dependencies = [
        ('modeling', '0004_batches'),
        ('tenants', '0002_shared_tables'),
    ]

    operations = [
        migrations.CreateModel(
            name='RecommendedDay',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('model', models.CharField(max_length=200)),
                ('endpoint', models.CharField(blank=True, max_length=64)),
                ('day', models.DateField()),
                ('kind', models.CharField(choices=[('shown', 'Shown'), ('view', 'Viewed'), ('click', 'Clicked'), ('cart', 'In the cart'), ('purchase', 'Purchased'), ('dismiss', 'Dismissed')], max_length=10)),
                ('position', models.PositiveSmallIntegerField()),
                ('count', models.BigIntegerField(default=0)),
                ('tenant', models.ForeignKey(editable=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('tenant', 'model', 'endpoint', 'day', 'kind', 'position'), name='recommended_day_once'), models.CheckConstraint(condition=models.Q(('kind__in', ['shown', 'view', 'click', 'cart', 'purchase', 'dismiss'])), name='recommended_kind_known')],
            },
        ),
        migrations.CreateModel(
            name='CountedEvent',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('digest', models.BinaryField(max_length=16)),
                ('day', models.DateField()),
                ('tenant', models.ForeignKey(editable=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
            ],
            options={
                'indexes': [models.Index(fields=['tenant', 'day'], name='counted_event_old')],
                'constraints': [models.UniqueConstraint(fields=('tenant', 'digest'), name='counted_event_once')],
            },
        ),
        Isolate("RecommendedDay", "CountedEvent"),
        Grant("RecommendedDay", "CountedEvent"),
    ]
