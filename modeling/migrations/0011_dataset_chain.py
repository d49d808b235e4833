import django.db.models.deletion
import modeling.models.chain
import saas.lib.db
import tenants.scope
from django.db import migrations, models
from tenants.scope_sql import Grant, Isolate

KEPT = "SELECT, INSERT, UPDATE"
BIND_TO_TENANT = "".join(
    f"ALTER TABLE {table} ADD CONSTRAINT {table}_{column}_in_tenant FOREIGN KEY (tenant_id, {column}) "
    f"REFERENCES {table} (tenant_id, id) DEFERRABLE INITIALLY DEFERRED;"
    for table, column in (("modeling_dataset", "merged_into_id"), ("modeling_datasetversion", "parent_id"))
)
OPERATOR_SEES_CHANGES = "SELECT (id, tenant_id, state, lease_until, created_at)"


class Migration(migrations.Migration):

    dependencies = [
        ('modeling', '0010_personal_policy'),
    ]

    operations = [
        migrations.AddField(
            model_name='dataset',
            name='merged_into',
            field=tenants.scope.TenantForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='modeling.dataset'),
        ),
        migrations.AddField(
            model_name='datasetversion',
            name='changes',
            field=models.JSONField(default=dict),
        ),
        migrations.AddField(
            model_name='datasetversion',
            name='made_by',
            field=models.CharField(blank=True, max_length=200),
        ),
        migrations.AddField(
            model_name='datasetversion',
            name='mode',
            field=models.CharField(choices=[('file', 'uploaded'), ('cut', 'cut by another unit'), ('read', 'read in another way'), ('append', 'rows added'), ('replace', 'people’s rows replaced'), ('remove', 'people removed'), ('mask', 'personal data masked')], default='file', max_length=10),
        ),
        migrations.AddField(
            model_name='datasetversion',
            name='parent',
            field=tenants.scope.TenantForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='modeling.datasetversion'),
        ),
        migrations.AddField(
            model_name='datasetversion',
            name='rows_hash',
            field=models.CharField(blank=True, max_length=64),
        ),
        migrations.CreateModel(
            name='Erasure',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('public_id', models.CharField(default=modeling.models.chain.erasure_id, editable=False, max_length=40)),
                ('person', models.CharField(max_length=64)),
                ('reached', models.JSONField(default=list)),
                ('models_told', models.JSONField(default=list)),
                ('open_jobs', models.JSONField(default=list)),
                ('certificate', models.JSONField(null=True)),
                ('created_by', models.CharField(blank=True, max_length=200)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('dataset', tenants.scope.TenantForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='modeling.dataset')),
                ('tenant', models.ForeignKey(editable=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
            ],
            options={
                'indexes': [models.Index(fields=['tenant', 'dataset'], name='erasure_by_dataset')],
                'constraints': [models.UniqueConstraint(fields=('tenant', 'public_id'), name='erasure_public_id')],
            },
        ),
        migrations.CreateModel(
            name='VersionChange',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('number', models.PositiveIntegerField()),
                ('mode', models.CharField(max_length=10)),
                ('key_column', models.CharField(blank=True, max_length=200)),
                ('tokens', models.BinaryField(default=bytes)),
                ('state', models.CharField(choices=[('queued', 'waiting'), ('running', 'being made'), ('succeeded', 'ready'), ('failed', 'failed')], default='queued', max_length=10)),
                ('rows_done', models.BigIntegerField(default=0)),
                ('rows_total', models.BigIntegerField(default=0)),
                ('error', models.JSONField(null=True)),
                ('created_by', models.CharField(blank=True, max_length=200)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('ended_at', models.DateTimeField(null=True)),
                ('epoch', models.PositiveIntegerField(default=0)),
                ('lease_until', models.DateTimeField(null=True)),
                ('base', tenants.scope.TenantForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='modeling.datasetversion')),
                ('dataset', tenants.scope.TenantForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='modeling.dataset')),
                ('file', tenants.scope.TenantForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='modeling.file')),
                ('tenant', models.ForeignKey(editable=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
            ],
            options={
                'constraints': [models.UniqueConstraint(condition=models.Q(('state__in', ['queued', 'running'])), fields=('tenant', 'dataset'), name='one_open_change'), models.CheckConstraint(condition=models.Q(('mode__in', ['append', 'replace', 'remove', 'mask'])), name='version_change_mode_known')],
            },
        ),
        migrations.CreateModel(
            name='VersionDiff',
            fields=[
                ('id', models.UUIDField(default=saas.lib.db.uuid7, editable=False, primary_key=True, serialize=False)),
                ('found', models.JSONField(null=True)),
                ('listing', models.BinaryField(default=bytes)),
                ('lease_until', models.DateTimeField(null=True)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('dataset', tenants.scope.TenantForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='modeling.dataset')),
                ('first', tenants.scope.TenantForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='modeling.datasetversion')),
                ('second', tenants.scope.TenantForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='modeling.datasetversion')),
                ('tenant', models.ForeignKey(editable=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('tenant', 'first', 'second'), name='one_diff_of_two_versions')],
            },
        ),
        migrations.RunSQL(BIND_TO_TENANT, migrations.RunSQL.noop),
        Isolate("Erasure", "VersionChange", "VersionDiff"),
        Grant("VersionChange", app=KEPT, operator=OPERATOR_SEES_CHANGES),
        Grant("VersionDiff"),
        Grant("Erasure", app="SELECT, INSERT"),
    ]
