import django.db.models.deletion
import modeling.models.batches
import modeling.models.uploads
import saas.lib.db
import tenants.scope
from django.db import migrations, models
from tenants.scope_sql import Grant, Isolate

KEPT = "SELECT, INSERT, UPDATE"
OPERATOR_SEES_BATCHES = (
    "SELECT (id, tenant_id, state, epoch, lease_until, wait_until, served_at, created_at, expires_at)"
)


class Migration(migrations.Migration):

    dependencies = [
        ('modeling', '0003_endpoint_traffic'),
        ('tenants', '0002_shared_tables'),
    ]

    operations = [
        migrations.AlterField(
            model_name='file',
            name='purpose',
            field=models.CharField(choices=[('fine-tune', 'training data'), ('user_data', 'catalogue'), ('batch', 'requests of a batch'), ('batch_output', 'answers of a batch')], max_length=12),
        ),
        migrations.CreateModel(
            name='Batch',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('public_id', models.CharField(default=modeling.models.batches.batch_id, editable=False, max_length=40)),
                ('endpoint', models.CharField(max_length=40)),
                ('metadata', models.JSONField(default=dict)),
                ('state', models.CharField(choices=[('validating', 'checking'), ('in_progress', 'in progress'), ('finalizing', 'writing the files'), ('cancelling', 'cancelling'), ('completed', 'completed'), ('failed', 'failed'), ('expired', 'expired'), ('cancelled', 'cancelled')], default='validating', max_length=12)),
                ('ends_as', models.CharField(choices=[('validating', 'checking'), ('in_progress', 'in progress'), ('finalizing', 'writing the files'), ('cancelling', 'cancelling'), ('completed', 'completed'), ('failed', 'failed'), ('expired', 'expired'), ('cancelled', 'cancelled')], default='completed', max_length=12)),
                ('errors', models.JSONField(default=list)),
                ('total', models.PositiveIntegerField(default=0)),
                ('completed', models.PositiveIntegerField(default=0)),
                ('failed', models.PositiveIntegerField(default=0)),
                ('offset', models.BigIntegerField(default=0)),
                ('line', models.PositiveIntegerField(default=0)),
                ('used', models.JSONField(default=dict)),
                ('slices', models.PositiveIntegerField(default=0)),
                ('epoch', models.PositiveIntegerField(default=0)),
                ('tries', models.PositiveSmallIntegerField(default=0)),
                ('lease_until', models.DateTimeField(null=True)),
                ('wait_until', models.DateTimeField(null=True)),
                ('served_at', models.DateTimeField(null=True)),
                ('created_by', models.CharField(blank=True, max_length=200)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('expires_at', models.DateTimeField(default=modeling.models.batches.window_end)),
                ('in_progress_at', models.DateTimeField(null=True)),
                ('finalizing_at', models.DateTimeField(null=True)),
                ('cancelling_at', models.DateTimeField(null=True)),
                ('ended_at', models.DateTimeField(null=True)),
                ('error_file', tenants.scope.TenantForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='modeling.file')),
                ('file', tenants.scope.TenantForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='modeling.file')),
                ('output_file', tenants.scope.TenantForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='modeling.file')),
                ('tenant', models.ForeignKey(editable=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
            ],
        ),
        migrations.CreateModel(
            name='BatchSlice',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('number', models.PositiveIntegerField()),
                ('output_bytes', models.BigIntegerField()),
                ('batch', tenants.scope.TenantForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='modeling.batch')),
                ('object', tenants.scope.TenantForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.vaultobject')),
                ('tenant', models.ForeignKey(editable=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
            ],
        ),
        migrations.CreateModel(
            name='Upload',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('public_id', models.CharField(default=modeling.models.uploads.upload_id, editable=False, max_length=40)),
                ('name', models.CharField(max_length=255)),
                ('purpose', models.CharField(choices=[('fine-tune', 'training data'), ('user_data', 'catalogue'), ('batch', 'requests of a batch'), ('batch_output', 'answers of a batch')], max_length=12)),
                ('mime_type', models.CharField(blank=True, max_length=120)),
                ('size_bytes', models.BigIntegerField()),
                ('status', models.CharField(choices=[('pending', 'pending'), ('completed', 'completed'), ('cancelled', 'cancelled'), ('expired', 'expired')], default='pending', max_length=10)),
                ('created_by', models.CharField(blank=True, max_length=200)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('expires_at', models.DateTimeField(default=modeling.models.uploads.open_until)),
                ('file', tenants.scope.TenantForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='modeling.file')),
                ('tenant', models.ForeignKey(editable=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
            ],
        ),
        migrations.CreateModel(
            name='UploadPart',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('public_id', models.CharField(default=modeling.models.uploads.part_id, editable=False, max_length=40)),
                ('size_bytes', models.BigIntegerField()),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('object', tenants.scope.TenantForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.vaultobject')),
                ('tenant', models.ForeignKey(editable=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
                ('upload', tenants.scope.TenantForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='modeling.upload')),
            ],
        ),
        migrations.AddIndex(
            model_name='batch',
            index=models.Index(condition=models.Q(('state__in', ('validating', 'in_progress', 'finalizing', 'cancelling'))), fields=['served_at'], name='batch_open'),
        ),
        migrations.AddConstraint(
            model_name='batch',
            constraint=models.UniqueConstraint(fields=('tenant', 'public_id'), name='batch_public_id'),
        ),
        migrations.AddConstraint(
            model_name='batchslice',
            constraint=models.UniqueConstraint(fields=('tenant', 'batch', 'number'), name='batch_slice_number'),
        ),
        migrations.AddConstraint(
            model_name='upload',
            constraint=models.UniqueConstraint(fields=('tenant', 'public_id'), name='upload_public_id'),
        ),
        migrations.AddConstraint(
            model_name='uploadpart',
            constraint=models.UniqueConstraint(fields=('tenant', 'public_id'), name='upload_part_public_id'),
        ),
        Isolate("Batch", "BatchSlice", "Upload", "UploadPart"),
        Grant("Batch", app=KEPT, operator=OPERATOR_SEES_BATCHES),
        Grant("Upload", app=KEPT, operator="SELECT (id, tenant_id, status, expires_at)"),
        Grant("BatchSlice", "UploadPart"),
    ]
