from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('modeling', '0009_dataset_schema'),
    ]

    operations: list[object] = []
