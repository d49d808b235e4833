from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('modeling', '0002_private_training'),
    ]

    operations = []
