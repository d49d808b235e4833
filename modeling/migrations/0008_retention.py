from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('modeling', '0007_reading'),
    ]

    operations = [
        migrations.AddField(
            model_name='file',
            name='expires_at',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name='upload',
            name='keep_seconds',
            field=models.PositiveIntegerField(null=True),
        ),
        migrations.AddField(
            model_name='upload',
            name='part_bytes',
            field=models.BigIntegerField(null=True),
        ),
        migrations.AddField(
            model_name='uploadpart',
            name='checksum',
            field=models.BinaryField(default=bytes),
        ),
        migrations.AddField(
            model_name='uploadpart',
            name='number',
            field=models.PositiveIntegerField(null=True),
        ),
        migrations.AddField(
            model_name='uploadpart',
            name='place',
            field=models.PositiveIntegerField(null=True),
        ),
        migrations.AddConstraint(
            model_name='uploadpart',
            constraint=models.UniqueConstraint(fields=('tenant', 'upload', 'number'), name='upload_part_number'),
        ),
    ]
