from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('modeling', '0004_batches'),
    ]

    operations = []
