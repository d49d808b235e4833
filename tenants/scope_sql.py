"""Migration operations that build the wall: row-level security, composite keys, doors and grants."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.db.migrations.operations.base import Operation

from tenants.scope import TenantForeignKey

TENANT = "NULLIF(current_setting('app.tenant_id', true), '')::uuid"
EVERYTHING = "SELECT, INSERT, UPDATE, DELETE"
APPEND_ONLY = "SELECT, INSERT"


def app_role() -> str:
    """The restricted role of web, workers and gateway."""
    return str(settings.DATABASES["default"]["USER"])


def operator_role() -> str:
    """The role of the console and the dispatcher."""
    return str(settings.DATABASES["operator"]["USER"])


class WallOperation(Operation, ABC):
    """A forward-only SQL operation over some models of one app."""

    reduces_to_sql = True
    reversible = True
    atomic = True

    def __init__(self, *models: str, **options: Any) -> None:
        self.models = models
        self.options = options

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        """How a migration file writes this operation."""
        return type(self).__name__, list(self.models), dict(self.options)

    def state_forwards(self, app_label: str, state: Any) -> None:
        """The models do not change."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Run the statements."""
        for statement in self.statements([to_state.apps.get_model(app_label, name) for name in self.models]):
            schema_editor.execute(statement)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Nothing to undo: the table goes with its model."""

    @abstractmethod
    def statements(self, models: list[Any]) -> Iterator[str]:
        """The SQL, in order."""

    def describe(self) -> str:
        """One line for `migrate -v 2`."""
        return f"{type(self).__name__} {', '.join(self.models)}"


class Isolate(WallOperation):
    """Force row-level security on tenant tables and bind their foreign keys to the tenant."""

    def statements(self, models: list[Any]) -> Iterator[str]:
        """Policies and UNIQUE (tenant_id, id) of all models first, then the composite foreign keys."""
        for model in models:
            table = model._meta.db_table
            yield f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"
            yield f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY"
            yield (
                f"CREATE POLICY tenant_isolation ON {table} "
                f"USING (tenant_id = {TENANT}) WITH CHECK (tenant_id = {TENANT})"
            )
            yield f"ALTER TABLE {table} ADD CONSTRAINT {table}_in_tenant UNIQUE (tenant_id, id)"
        for model in models:
            yield from self._foreign_keys(model)

    def _foreign_keys(self, model: Any) -> Iterator[str]:
        table = model._meta.db_table
        for field in model._meta.local_fields:
            if isinstance(field, TenantForeignKey):
                target = field.related_model._meta.db_table
                yield (
                    f"ALTER TABLE {table} ADD CONSTRAINT {table}_{field.column}_in_tenant "
                    f"FOREIGN KEY (tenant_id, {field.column}) REFERENCES {target} (tenant_id, id) "
                    "DEFERRABLE INITIALLY DEFERRED"
                )


class IsolateTenant(WallOperation):
    """Row-level security on the tenant table itself, whose own id is the tenant."""

    def statements(self, models: list[Any]) -> Iterator[str]:
        """One policy on `id`."""
        for model in models:
            table = model._meta.db_table
            yield f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"
            yield f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY"
            yield f"CREATE POLICY tenant_isolation ON {table} USING (id = {TENANT}) WITH CHECK (id = {TENANT})"


class GrantLinks(WallOperation):
    """Rights of the app role on the many-to-many tables that Django makes for a model."""

    def statements(self, models: list[Any]) -> Iterator[str]:
        """GRANTs on the link tables and their sequences."""
        for model in models:
            for field in model._meta.local_many_to_many:
                link = field.m2m_db_table()
                yield f'GRANT {EVERYTHING} ON {link} TO "{app_role()}"'
                yield f'GRANT USAGE ON {link}_id_seq TO "{app_role()}"'


class GrantShared(Operation):
    """Rights of the app role on every table and sequence that other packages' migrations made in this schema."""

    reversible = True

    def __init__(self, *prefixes: str) -> None:
        self.prefixes = prefixes

    def state_forwards(self, app_label: str, state: Any) -> None:
        """The models do not change."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """GRANT on tables and sequences whose names start with one of the prefixes."""
        query = (
            "SELECT relkind, relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE n.nspname = current_schema() AND relkind IN ('r', 'S') AND relname LIKE %s"
        )
        for prefix in self.prefixes:
            with schema_editor.connection.cursor() as cursor:
                cursor.execute(query, [prefix.replace("_", "\\_") + "%"])
                found = cursor.fetchall()
            for kind, name in found:
                rights, noun = (EVERYTHING, "TABLE") if kind == "r" else ("USAGE", "SEQUENCE")
                statement = f'GRANT {rights} ON {noun} "{name}" TO "{app_role()}"'  # names from pg_class
                schema_editor.execute(statement)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Nothing to undo."""

    def describe(self) -> str:
        """One line for `migrate -v 2`."""
        return f"GrantShared {', '.join(self.prefixes)}"


class Grant(WallOperation):
    """Give the app role and, where named, the operator role rights on tables; the operator sees all tenants."""

    def __init__(self, *models: str, app: str = EVERYTHING, operator: str = "") -> None:
        super().__init__(*models, app=app, operator=operator)

    def statements(self, models: list[Any]) -> Iterator[str]:
        """GRANTs, and for the operator a policy on isolated tables."""
        app, operator = self.options["app"], self.options["operator"]
        for model in models:
            table = model._meta.db_table
            if app:
                yield f'GRANT {app} ON {table} TO "{app_role()}"'
            if operator:
                yield f'GRANT {operator} ON {table} TO "{operator_role()}"'
                yield (
                    f"DO $$ BEGIN IF (SELECT relrowsecurity FROM pg_class WHERE oid = '{table}'::regclass) "  # noqa: S608
                    f"AND NOT EXISTS (SELECT FROM pg_policies WHERE schemaname = current_schema() "
                    f"AND tablename = '{table}' AND policyname = 'operator_sees') THEN "
                    f'CREATE POLICY operator_sees ON {table} TO "{operator_role()}" USING (true); '
                    "END IF; END $$"
                )


class Erasable(WallOperation):
    """DELETE for the app role on rows that otherwise only grow, once the tenant's keys are destroyed for good.

    Whoever cuts a living tenant's log or ledger this way must first destroy the tenant, which its tombstone tells.
    """

    def statements(self, models: list[Any]) -> Iterator[str]:
        """The right, and a policy that narrows it."""
        for model in models:
            table = model._meta.db_table
            yield f'GRANT DELETE ON {table} TO "{app_role()}"'
            yield (
                f'CREATE POLICY once_erased ON {table} AS RESTRICTIVE FOR DELETE TO "{app_role()}" USING ('  # noqa: S608
                f"EXISTS (SELECT FROM tenants_tombstone WHERE tenant_id = {TENANT} AND kind = 'tenant') "
                f"AND NOT EXISTS (SELECT FROM tenants_datakey WHERE tenant_id = {TENANT}))"
            )


class Door(WallOperation):
    """A SELECT-only policy on one setting of its own, for lookups before a tenant is known."""

    def __init__(self, *models: str, name: str, condition: str) -> None:
        super().__init__(*models, name=name, condition=condition)

    def statements(self, models: list[Any]) -> Iterator[str]:
        """One policy per table; `condition` says VALUE where the setting stands."""
        name = self.options["name"]
        value = f"NULLIF(current_setting('app.{name}', true), '')"
        condition = self.options["condition"].replace("VALUE", value)
        for model in models:
            yield f"CREATE POLICY door_{name} ON {model._meta.db_table} FOR SELECT USING ({condition})"
