"""Rights of the app role on the shared tables of Django and allauth, and the operator's own few."""

from typing import ClassVar

from django.db import migrations

from tenants.scope_sql import GrantShared


class Migration(migrations.Migration):
    """Runs after the migrations of the packages whose tables it grants."""

    dependencies: ClassVar[list[tuple[str, str]]] = [
        ("tenants", "0001_initial"),
        ("admin", "0003_logentry_add_action_flag_choices"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
        ("sessions", "0001_initial"),
        ("account", "0009_emailaddress_unique_primary_email"),
        ("mfa", "0003_authenticator_type_uniq"),
    ]
    operations: ClassVar[list[GrantShared]] = [GrantShared("django_", "auth_", "account_", "mfa_")]
