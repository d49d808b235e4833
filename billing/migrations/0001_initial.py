"""Subscriptions, usage and Stripe events."""

import django.db.models.deletion
import saas.lib.db
from django.db import migrations, models


from tenants.scope_sql import Door, Grant, Isolate


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('tenants', '0001_initial'),
    ]

    operations = [
        migrations.CreateModel(
            name='StripeEvent',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('event_id', models.CharField(max_length=80, unique=True)),
                ('kind', models.CharField(max_length=80)),
                ('customer', models.CharField(blank=True, max_length=64)),
                ('object_id', models.CharField(blank=True, max_length=80)),
                ('happened_at', models.DateTimeField()),
                ('received_at', models.DateTimeField(auto_now_add=True)),
                ('processed_at', models.DateTimeField(null=True)),
                ('attempts', models.PositiveIntegerField(default=0)),
                ('error', models.CharField(blank=True, max_length=300)),
            ],
        ),
        migrations.CreateModel(
            name='Subscription',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('plan', models.CharField(default='free', max_length=20)),
                ('status', models.CharField(choices=[('none', 'none'), ('active', 'active'), ('trialing', 'trial'), ('past_due', 'past due'), ('unpaid', 'unpaid'), ('canceled', 'cancelled'), ('incomplete', 'incomplete')], default='none', max_length=12)),
                ('stripe_customer', models.CharField(blank=True, max_length=64)),
                ('stripe_subscription', models.CharField(blank=True, max_length=64)),
                ('period_end_at', models.DateTimeField(null=True)),
                ('past_due_since', models.DateTimeField(null=True)),
                ('cancel_at_period_end', models.BooleanField(default=False)),
                ('as_of', models.DateTimeField(null=True)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('tenant', models.ForeignKey(editable=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('tenant',), name='one_subscription')],
            },
        ),
        migrations.CreateModel(
            name='UsageEvent',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('training_seconds', 'training seconds'), ('predictions', 'predictions'), ('tokens', 'tokens'), ('stored_byte_hours', 'stored byte-hours')], max_length=20)),
                ('quantity', models.DecimalField(decimal_places=3, max_digits=24)),
                ('request_id', models.CharField(max_length=80)),
                ('at', models.DateTimeField()),
                ('reported_at', models.DateTimeField(null=True)),
                ('tenant', models.ForeignKey(editable=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
            ],
            options={
                'indexes': [models.Index(fields=['tenant', 'at'], name='usage_by_month'), models.Index(condition=models.Q(('reported_at', None)), fields=['at'], name='usage_unreported')],
                'constraints': [models.UniqueConstraint(fields=('tenant', 'request_id', 'kind'), name='usage_once')],
            },
        ),
        Isolate("Subscription", "UsageEvent"),
        Grant("Subscription", operator="SELECT"),
        Grant("UsageEvent", app="SELECT, INSERT, UPDATE (reported_at)", operator="SELECT"),
        Grant("StripeEvent", operator="SELECT"),
        Door("Subscription", name="stripe_customer", condition="stripe_customer = VALUE"),
    ]
