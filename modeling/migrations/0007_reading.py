from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('modeling', '0006_served_minutes'),
        ('tenants', '0004_objects'),
    ]

    operations: list[object] = []
