# Cloister's habits. `make run` and `make test` set everything up by themselves.
.DEFAULT_GOAL := help
.PHONY: help install install-test install-bench run test slow accounting kills zombies races tampering audit proofs check check-static fix map bench

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

# A proof with its full count; WRITE=1 puts what it found into tests/proofs/README.md.
PROVE = PROOF_COMMAND="make $@" exec "$(BIN)/python" -m pytest -s $(if $(WRITE),--write) $(ARGS)

accounting: install-test ## epsilon against PLD, Renyi and Opacus PRV on 200 settings
	@exec "$(BIN)/python" -m pytest -m slow -s tests/core/test_accounting_grid.py $(ARGS)

kills: install-test ## kill -9 of real training workers (KILLS=20 for fewer)
	@KILLS=$${KILLS:-200} $(PROVE) -m slow tests/modeling/test_kills.py

zombies: install-test ## workers stopped past their lease, then continued (ZOMBIES=10 for fewer)
	@ZOMBIES=$${ZOMBIES:-100} $(PROVE) -m slow tests/modeling/test_zombies.py

races: install-test ## two processes racing for the last epsilon (RACES=100 for fewer)
	@RACES=$${RACES:-1000} $(PROVE) -m slow tests/modeling/test_races.py

tampering: install-test ## the ledger's rows edited, deleted, swapped, their tail cut
	@$(PROVE) tests/modeling/test_tampering.py

audit: install-test ## canaries through the real trainers, honest and broken (AUDIT_RUNS=5 for fewer)
	@$(PROVE) -m slow tests/core/test_audit.py

proofs: kills zombies races tampering audit ## all five

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
