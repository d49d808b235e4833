from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('modeling', '0008_retention'),
    ]

    operations: list[object] = []
