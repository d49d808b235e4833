"""The wall, read from PostgreSQL's catalogue: every table of tenant rows is isolated, every exception is on a list."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django.conf import settings
from django.db import connections, transaction

from tenants.models import Tenant
from tenants.scope import TenantForeignKey, TenantOwned

SETTING = "(NULLIF(current_setting('app.{}'::text, true), ''::text))"
OWN_TENANT = f"(tenant_id = {SETTING.format('tenant_id')}::uuid)"

# Tables without tenant_id, each with the reason why its rows belong to no single tenant.
SHARED = {
    "account_emailaddress": "a person's addresses; people belong to several tenants",
    "account_emailconfirmation": "allauth's, of a person",
    "auth_group": "Django's, unused",
    "auth_group_permissions": "Django's, unused",
    "auth_permission": "Django's, names of models",
    "billing_stripeevent": "webhook events before their tenant is known; Stripe's ids only",
    "django_admin_log": "Django's; the console changes nothing through forms",
    "django_content_type": "Django's, names of models",
    "django_migrations": "Django's",
    "django_session": "a person's session; read before a tenant is known",
    "mfa_authenticator": "a person's second factors",
    "modeling_pace": "what finished runs took beside their plans, in two figures: no tenant, no job, no data",
    "modeling_worker": "processes, not tenants; a job's opaque uuid at most",
    "tenants_reservedslug": "keyed digests of the slugs of erased tenants: no tenant, no name",
    "tenants_tenant": "the tenant itself: isolated by its own id, checked below",
    "tenants_user": "people; signing in happens before a tenant is known",
    "tenants_user_groups": "Django's, unused",
    "tenants_user_user_permissions": "Django's, unused",
}

# SELECT-only policies on one setting of their own, used before a tenant is known.
DOORS = {
    ("tenants_member", "door_user_id"): f"(user_id = {SETTING.format('user_id')}::uuid)",
    ("tenants_tenant", "door_user_id"): (
        "(id IN ( SELECT tenants_member.tenant_id FROM tenants_member "
        f"WHERE (tenants_member.user_id = {SETTING.format('user_id')}::uuid)))"
    ),
    ("tenants_apikeysecret", "door_key_hash"): f"((digest)::text = {SETTING.format('key_hash')[1:-1]})",
    ("tenants_invite", "door_invite_hash"): f"((token_hash)::text = {SETTING.format('invite_hash')[1:-1]})",
    ("billing_subscription", "door_stripe_customer"): (
        f"((stripe_customer)::text = {SETTING.format('stripe_customer')[1:-1]})"
    ),
}

# Tables of tenant rows that the operator role may look across: the console and the dispatcher.
OPERATOR_SEES = {
    "billing_subscription",
    "billing_usageevent",
    "modeling_batch",
    "modeling_inspection",
    "modeling_job",
    "modeling_qualityreport",
    "modeling_upload",
    "modeling_versionchange",
    "tenants_keyrotation",
    "tenants_member",
    "tenants_ownkey",
    "tenants_storesweep",
    "tenants_tenant",
    "tenants_tenanterasure",
    "tenants_tombstone",
}

# Rows that only grow or are kept, until their tenant's keys are destroyed: then the app role may delete them.
ONCE_ERASED = {
    "modeling_batch",
    "modeling_erasure",
    "modeling_job",
    "modeling_jobevent",
    "modeling_ledgerhead",
    "modeling_legalhold",
    "modeling_modelversion",
    "modeling_privacyaccount",
    "modeling_privacyentry",
    "modeling_upload",
    "modeling_versionchange",
    "tenants_auditentry",
}
IS_ERASED = (
    "((EXISTS ( SELECT FROM tenants_tombstone WHERE ((tenants_tombstone.tenant_id = "
    f"{SETTING.format('tenant_id')}::uuid) AND ((tenants_tombstone.kind)::text = 'tenant'::text)))) AND (NOT (EXISTS ( "
    f"SELECT FROM tenants_datakey WHERE (tenants_datakey.tenant_id = {SETTING.format('tenant_id')}::uuid)))))"
)

# Unique across tenants on purpose.
UNIQUE_EVERYWHERE = {
    "api_key_digest": "HMAC of 238 random bits under the pepper: a collision tells nothing and cannot be tried",
}

OPERATOR_WRITES = {
    "modeling_job": {"UPDATE"},  # the dispatcher marks what it offered, by column grant
}


def asked(cursor: Any, query: str, *values: Any) -> list[Any]:
    cursor.execute(query, values)
    return list(cursor.fetchall())


def tables(cursor: Any) -> dict[str, bool]:
    """Every ordinary table in the schema, and whether it has a tenant_id."""
    query = """
        SELECT c.relname, EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id')
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p')"""
    return dict(asked(cursor, query))


def policies(cursor: Any, table: str) -> dict[str, tuple[str, str, str, str, str]]:
    """name -> (permissive, roles, command, USING, WITH CHECK), white space normalised."""
    query = "SELECT policyname, permissive, roles::text, cmd, qual, with_check FROM pg_policies WHERE tablename = %s"
    found = asked(cursor, query, table)
    return {row[0]: tuple(" ".join((cell or "").split()) for cell in row[1:]) for row in found}  # type: ignore[misc]


def wall_faults(cursor: Any, table: str, own: str) -> list[str]:
    """What is wrong with row-level security and the policies of one table; `own` is the isolating condition."""
    query = "SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = %s::regclass"
    ((enabled, forced),) = asked(cursor, query, table)
    faults = [] if enabled else [f"{table}: row-level security is not enabled"]
    faults += [] if forced else [f"{table}: row-level security is not forced"]
    found = policies(cursor, table)
    if found.pop("tenant_isolation", None) != ("PERMISSIVE", "{public}", "ALL", own, own):
        faults.append(f"{table}: tenant_isolation is missing or lacks USING or WITH CHECK on the setting")
    operator = settings.DATABASES["operator"]["USER"]
    for name, policy in found.items():
        permissive, roles, command, using, check = policy
        if name == "operator_sees" and table in OPERATOR_SEES and roles == f"{{{operator}}}":
            continue
        once = ("RESTRICTIVE", f"{{{settings.DATABASES['default']['USER']}}}", "DELETE", IS_ERASED, "")
        if name == "once_erased" and table in ONCE_ERASED and policy == once:
            continue
        if (command, roles, check) != ("SELECT", "{public}", "") or DOORS.get((table, name)) != using:
            faults.append(f"{table}: policy {name} ({permissive} {command}) is not on the list of doors")
    return faults


def key_faults(cursor: Any, table: str) -> list[str]:
    """UNIQUE and FOREIGN KEY of one tenant table that leave the tenant out, and a nullable tenant_id."""
    query = """
        SELECT i.indexrelid::regclass::text, array_agg(a.attname)::text[]
        FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
        WHERE i.indrelid = %s::regclass AND i.indisunique AND NOT i.indisprimary GROUP BY 1"""
    unique = dict(asked(cursor, query, table))
    faults = [
        f"{table}: UNIQUE {name} leaves tenant_id out"
        for name, columns in unique.items()
        if "tenant_id" not in columns and name not in UNIQUE_EVERYWHERE
    ]
    if not any(set(columns) == {"tenant_id", "id"} for columns in unique.values()):
        faults.append(f"{table}: UNIQUE (tenant_id, id) is missing")
    query = """
        SELECT k.conname, k.confrelid::regclass::text,
            ARRAY(SELECT attname FROM pg_attribute WHERE attrelid = k.conrelid AND attnum = ANY (k.conkey))::text[]
        FROM pg_constraint k WHERE k.conrelid = %s::regclass AND k.contype = 'f'"""
    with_tenant = {name for name, has_tenant in tables(cursor).items() if has_tenant}
    for name, target, columns in asked(cursor, query, table):
        if target in with_tenant and "tenant_id" not in columns:
            faults.append(f"{table}: FOREIGN KEY {name} leaves tenant_id out")
    query = "SELECT attnotnull FROM pg_attribute WHERE attrelid = %s::regclass AND attname = 'tenant_id'"
    if asked(cursor, query, table) != [(True,)]:
        faults.append(f"{table}: tenant_id may be NULL")
    return faults


def grant_faults(cursor: Any) -> list[str]:
    """Rights beyond reading and writing rows, and owners other than the migrator."""
    query = """
        SELECT table_name, grantee, privilege_type FROM information_schema.role_table_grants
        WHERE table_schema = 'public' AND grantee <> (SELECT pg_get_userbyid(relowner) FROM pg_class
            WHERE oid = quote_ident(table_name)::regclass)"""
    app, operator = (settings.DATABASES[alias]["USER"] for alias in ("default", "operator"))
    faults = []
    for table, grantee, right in asked(cursor, query):
        if grantee not in (app, operator) or right in ("TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN"):
            faults.append(f"{table}: {right} is granted to {grantee}")
        elif grantee == operator and right != "SELECT" and right not in OPERATOR_WRITES.get(table, set()):
            faults.append(f"{table}: the operator role may {right}")
    owners = "SELECT relname FROM pg_class WHERE pg_get_userbyid(relowner) IN (%s, %s)"
    return faults + [f"{table}: owned by a serving role" for (table,) in asked(cursor, owners, app, operator)]


def side_doors(cursor: Any) -> list[str]:
    """Views that read as their owner, materialised rows, functions that run as their owner."""
    query = """
        SELECT c.relname, c.relkind, coalesce(c.reloptions::text, '') FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'public' AND c.relkind IN ('v', 'm', 'f')"""
    faults = [
        f"{name}: a view without security_invoker, or materialised or foreign rows"
        for name, kind, options in asked(cursor, query)
        if kind != "v" or "security_invoker=true" not in options
    ]
    query = """
        SELECT p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE p.prosecdef AND n.nspname NOT IN ('pg_catalog', 'information_schema')"""
    return faults + [f"{name}: SECURITY DEFINER" for (name,) in asked(cursor, query)]


def catalogue_faults(cursor: Any) -> list[str]:
    """Everything wrong with the wall, as sentences; empty when it stands."""
    found = tables(cursor)
    faults = wall_faults(cursor, "tenants_tenant", OWN_TENANT.replace("tenant_id =", "id ="))
    for table, has_tenant in sorted(found.items()):
        if has_tenant:
            faults += wall_faults(cursor, table, OWN_TENANT) + key_faults(cursor, table)
        elif table not in SHARED:
            faults.append(f"{table}: has no tenant_id and is not on the list of shared tables")
    return faults + grant_faults(cursor) + side_doors(cursor)


def test_it_works() -> None:
    with connections["migrator"].cursor() as cursor:
        assert sum(tables(cursor).values()) >= 12
        assert catalogue_faults(cursor) == []


def test_the_lists_name_only_what_exists() -> None:
    with connections["migrator"].cursor() as cursor:
        found = tables(cursor)
        assert set(SHARED) <= set(found)
        for table, name in DOORS:
            assert name in policies(cursor, table)
        assert {table for table in found if "operator_sees" in policies(cursor, table)} == OPERATOR_SEES
        assert {table for table in found if "once_erased" in policies(cursor, table)} == ONCE_ERASED


def test_every_key_between_tenant_rows_is_bound_to_the_tenant() -> None:
    """Django's side: such a key is a TenantForeignKey, and its composite constraint is in the database."""
    query = "SELECT conname FROM pg_constraint WHERE contype = 'f' AND conrelid = %s::regclass"
    checked = 0
    with connections["migrator"].cursor() as cursor:
        for model in apps.get_models():
            if not issubclass(model, TenantOwned):
                assert not any(isinstance(field, TenantForeignKey) for field in model._meta.local_fields)
                continue
            table = model._meta.db_table
            names = {name for (name,) in asked(cursor, query, table)}
            for field in model._meta.local_fields:
                target = field.related_model
                if isinstance(target, type) and issubclass(target, TenantOwned):
                    checked += 1
                    assert isinstance(field, TenantForeignKey), f"{table}.{field.name}"
                    assert f"{table}_{field.column}_in_tenant" in names, f"{table}.{field.name}"
                elif target is not None and target is not Tenant:
                    assert target._meta.db_table in SHARED  # type: ignore[union-attr]
    assert checked >= 2


GOOD = (
    "CREATE TABLE planted (id uuid PRIMARY KEY, name text, tenant_id uuid NOT NULL REFERENCES tenants_tenant (id), "
    "member_id uuid, CONSTRAINT planted_in_tenant UNIQUE (tenant_id, id), "
    "CONSTRAINT planted_member FOREIGN KEY (tenant_id, member_id) REFERENCES tenants_member (tenant_id, id)); "
    "ALTER TABLE planted ENABLE ROW LEVEL SECURITY; ALTER TABLE planted FORCE ROW LEVEL SECURITY; "
)
OWN = "tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::uuid"
POLICY = f"CREATE POLICY tenant_isolation ON planted USING ({OWN}) WITH CHECK ({OWN}); "
PLANTED = {
    "no row-level security": (POLICY, "ALTER TABLE planted DISABLE ROW LEVEL SECURITY", "not enabled"),
    "not forced": (POLICY, "ALTER TABLE planted NO FORCE ROW LEVEL SECURITY", "not forced"),
    "no policy": ("", "", "tenant_isolation is missing"),
    "a policy that lets everything pass": (
        "CREATE POLICY tenant_isolation ON planted USING (true) WITH CHECK (true)", "", "tenant_isolation is missing"
    ),
    "no WITH CHECK": (f"CREATE POLICY tenant_isolation ON planted USING ({OWN})", "", "tenant_isolation is missing"),
    "a log that may be cut while its tenant lives": (
        "", "ALTER POLICY once_erased ON tenants_auditentry USING (true)", "tenants_auditentry: policy once_erased"
    ),
    "a second policy": (POLICY, "CREATE POLICY extra ON planted FOR SELECT USING (true)", "not on the list of doors"),
    "an operator policy": (POLICY, "CREATE POLICY operator_sees ON planted TO operator USING (true)", "not on"),
    "a door that also writes": (
        "", "CREATE POLICY door_more ON tenants_invite USING (true)", "tenants_invite: policy door_more"
    ),
    "a widened door": (
        "",
        "ALTER POLICY door_user_id ON tenants_member USING (true)",
        "tenants_member: policy door_user_id",
    ),
    "a global UNIQUE": (POLICY, "ALTER TABLE planted ADD UNIQUE (name)", "leaves tenant_id out"),
    "a unique index": (POLICY, "CREATE UNIQUE INDEX planted_lower ON planted (name)", "leaves tenant_id out"),
    "no composite key to point at": (POLICY, "ALTER TABLE planted DROP CONSTRAINT planted_in_tenant", "is missing"),
    "a plain foreign key": (
        POLICY, "ALTER TABLE planted ADD FOREIGN KEY (member_id) REFERENCES tenants_member (id)", "leaves tenant_id out"
    ),
    "a tenant that may be NULL": (POLICY, "ALTER TABLE planted ALTER tenant_id DROP NOT NULL", "may be NULL"),
    "a table without a tenant": ("", "CREATE TABLE loose (id int)", "not on the list of shared tables"),
    "TRUNCATE for the app": (POLICY, "GRANT TRUNCATE ON planted TO app", "TRUNCATE is granted"),
    "an operator who writes": (POLICY, "GRANT UPDATE ON planted TO operator", "the operator role may UPDATE"),
    "rights for everybody": (POLICY, "GRANT SELECT ON planted TO PUBLIC", "is granted to PUBLIC"),
    "a view that reads as its owner": ("", "CREATE VIEW seen AS SELECT * FROM tenants_member", "security_invoker"),
    "materialised rows": ("", "CREATE MATERIALIZED VIEW kept AS SELECT 1 AS one", "materialised"),
    "a function that runs as its owner": (
        "", "CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'", "SECURITY DEFINER"
    ),
}  # fmt: skip


def planted_faults(*statements: str) -> list[str]:
    """The faults found with these statements in force; everything is rolled back."""
    with transaction.atomic(using="migrator"), connections["migrator"].cursor() as cursor:
        for statement in statements:
            if statement:
                cursor.execute(statement)
        faults = catalogue_faults(cursor)
        transaction.set_rollback(True, using="migrator")
    return faults


def test_a_good_table_passes() -> None:
    assert planted_faults(GOOD, POLICY) == []


@pytest.mark.parametrize("name", list(PLANTED))
def test_a_planted_fault_is_caught(name: str) -> None:
    policy, fault, words = PLANTED[name]
    assert any(words in found for found in planted_faults(GOOD, policy, fault))
