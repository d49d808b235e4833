from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('modeling', '0005_recommend_events'),
    ]

    operations = []
