#!/bin/sh
# Becomes one role of Cloister. The same image runs them all; the environment decides what each may reach.
set -eu
cd "$(dirname "$0")/.."
python="${CLOISTER_VENV:-.venv}/bin/python"
role="${1:-web}"
case "$role" in
    migrate) exec "$python" manage.py migrate --database migrator --no-input ;;
    web | engine | train | quick | timetable) exec "$python" manage.py up --only "$role" ;;
    gateway) exec "$python" -m uvicorn saas.gateway_asgi:application --no-access-log --host "${HOST:-127.0.0.1}" --port "${PORT:-8000}" ;;
    manage) shift && exec "$python" manage.py "$@" ;;
    *)
        echo "Unknown role '$role'. Roles: web, gateway, engine, train, quick, timetable, migrate, manage." >&2
        exit 2
        ;;
esac
