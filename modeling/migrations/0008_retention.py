from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('modeling', '0007_reading'),
    ]

    operations: list[object] = []
