#!/bin/sh
# Run once by the PostgreSQL image in an empty cluster: the database and its three roles (none may pass row security).
set -eu
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    --set migrator="$MIGRATOR_PASSWORD" --set app="$APP_PASSWORD" --set operator="$OPERATOR_PASSWORD" <<'SQL'
CREATE ROLE migrator LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB NOINHERIT PASSWORD :'migrator';
CREATE ROLE app LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB NOINHERIT PASSWORD :'app';
CREATE ROLE operator LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB NOINHERIT PASSWORD :'operator';
CREATE DATABASE cloister OWNER migrator;
REVOKE ALL ON DATABASE cloister FROM PUBLIC;
GRANT CONNECT ON DATABASE cloister TO app, operator;
SQL
