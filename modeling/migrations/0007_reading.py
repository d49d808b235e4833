from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('modeling', '0006_served_minutes'),
        ('tenants', '0004_objects'),
    ]

    operations = [
        migrations.AddField(
            model_name='file',
            name='errors_by_rule',
            field=models.JSONField(default=dict),
        ),
        migrations.AddField(
            model_name='file',
            name='reading',
            field=models.JSONField(default=dict),
        ),
        migrations.AddField(
            model_name='inspection',
            name='rows_done',
            field=models.BigIntegerField(default=0),
        ),
        migrations.AddField(
            model_name='inspection',
            name='bytes_done',
            field=models.BigIntegerField(default=0),
        ),
        migrations.AddField(
            model_name='inspection',
            name='kept_until',
            field=models.DateTimeField(null=True),
        ),
    ]
