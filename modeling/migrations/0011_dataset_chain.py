from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('modeling', '0010_personal_policy'),
    ]

    operations: list[object] = []
