# Cloister's habits. `make run` and `make test` set everything up by themselves.
.DEFAULT_GOAL := help
.PHONY: help install install-test install-bench run test slow kills check check-static fix map bench

PYTHON ?=
PORT ?= 8000
export PORT
VENV := $(CURDIR)/.venv
BIN := $(VENV)/bin
ARGS ?=

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

install: ## the environment and the base models, without starting anything
	@python=$$(sh docker/python.sh $(PYTHON)) && exec "$$python" docker/install.py

install-test:
	@python=$$(sh docker/python.sh $(PYTHON)) && exec "$$python" docker/install.py test

install-bench: install-test
	@python=$$(sh docker/python.sh $(PYTHON)) && exec "$$python" docker/install.py bench

run: install ## everything, at http://localhost:8000 (PORT=… for another); Ctrl-C stops it
	@exec "$(BIN)/python" manage.py up --end-with-parent $(ARGS)

test: install-test ## the default tests (ARGS=… goes to pytest)
	@exec "$(BIN)/python" -m pytest $(ARGS)

slow: install-test ## the long tests: kills, many seeds, the whole stack
	@exec "$(BIN)/python" -m pytest -m slow $(ARGS)

kills: install-test ## kill -9 of real training workers (KILLS=200 for more)
	@exec "$(BIN)/python" -m pytest -m slow -s tests/modeling/test_kills.py $(ARGS)

check: check-static ## format, lint, types, floors, migrations, map, tests
	"$(BIN)/python" -m pytest $(ARGS)

check-static: install-test
	"$(BIN)/ruff" format --check .
	"$(BIN)/ruff" check .
	"$(BIN)/mypy"
	"$(BIN)/lint-imports"
	"$(BIN)/python" manage.py makemigrations --check --dry-run --skip-checks
	"$(BIN)/python" manage.py map --check

fix: install-test ## format and mend what ruff can mend
	"$(BIN)/ruff" format .
	"$(BIN)/ruff" check --fix .

map: install-test ## write the README's map from the modules' docstrings
	@"$(BIN)/python" manage.py map

bench: install-bench ## the figures: speed and memory, as ratios measured side by side
	@for bench in tests/bench/*.py; do \
	    case "$$bench" in */__init__.py) continue ;; esac; \
	    echo "== $$bench"; PYTHONPATH=. "$(BIN)/python" "$$bench" || exit 1; done
