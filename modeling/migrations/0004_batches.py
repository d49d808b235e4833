from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('modeling', '0003_endpoint_traffic'),
    ]

    operations = []
