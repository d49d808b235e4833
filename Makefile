# Cloister's habits. `make run` and `make test` set everything up by themselves.
.DEFAULT_GOAL := help
.PHONY: help install install-test install-bench run test slow accounting kills zombies races tampering audit batches disconnects engine-kills usage-loss revocations flood moves upload-kills canary version-kills version-memory rotations own-keys hostile fuzz inspection-kills seals restores describe proofs check check-static fix map bench install-backends backends install-peers bench-peers

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

batches: install-test ## kill -9 of the worker in the middle of a batch (BATCH_LINES=1000 for fewer)
	@BATCH_LINES=$${BATCH_LINES:-10000} BATCH_KILLS=$${BATCH_KILLS:-5} $(PROVE) -m slow tests/serving/test_batch_kills.py

disconnects: install-test ## clients that leave in the middle of an answer (DISCONNECTS=100 for fewer)
	@DISCONNECTS=$${DISCONNECTS:-1000} $(PROVE) -m slow tests/serving/test_disconnects.py

engine-kills: install-test ## kill -9 of the engine under load (ENGINE_KILLS=5 for fewer)
	@ENGINE_KILLS=$${ENGINE_KILLS:-50} $(PROVE) -m slow tests/serving/test_engine_kills.py

usage-loss: install-test ## kill -9 of the gateway under load (USAGE_KILLS=4 for fewer)
	@USAGE_KILLS=$${USAGE_KILLS:-20} $(PROVE) -m slow tests/serving/test_usage_loss.py

revocations: install-test ## a key revoked under load, also with the revocations cut off (REVOCATIONS=5 for fewer)
	@REVOCATIONS=$${REVOCATIONS:-20} $(PROVE) -m slow tests/serving/test_revoked_under_load.py

flood: install-test ## many large bodies at once, and what they cost in memory
	@$(PROVE) -m slow tests/serving/test_body_flood.py

moves: install-test ## an endpoint moved back and forth under load (ENDPOINT_MOVES=3 for fewer)
	@ENDPOINT_MOVES=$${ENDPOINT_MOVES:-100} $(PROVE) tests/serving/test_endpoint_traffic.py -k under_load

describe: install-test ## the API against its own description, at length (SCHEMA_EXAMPLES=15 for fewer)
	@SCHEMA_EXAMPLES=$${SCHEMA_EXAMPLES:-40} exec "$(BIN)/python" -m pytest tests/architecture/test_described_api.py $(ARGS)

upload-kills: install-test ## kill -9 of the web process during uploads (UPLOAD_KILLS=4 for fewer)
	@UPLOAD_KILLS=$${UPLOAD_KILLS:-20} $(PROVE) -m slow tests/modeling/test_upload_kills.py

canary: install-test ## a marker in 1 GB of rows, searched for on the whole disk (CANARY_MB=64 for fewer)
	@CANARY_MB=$${CANARY_MB:-1000} $(PROVE) -m slow tests/modeling/test_canary.py

rotations: install-test ## kill -9 while keys are rotated under load (ROTATED_OBJECTS=1000 for fewer)
	@ROTATED_OBJECTS=$${ROTATED_OBJECTS:-10000} ROTATION_KILLS=$${ROTATION_KILLS:-9} $(PROVE) -m slow tests/tenants/test_rotations.py

own-keys: install-test ## a tenant's own key disabled under load, with and without a worker that watches
	@$(PROVE) -m slow tests/serving/test_own_key_revoked.py

version-kills: install-test ## kill -9 of workers while they make a version (VERSION_KILLS=4 for fewer)
	@VERSION_KILLS=$${VERSION_KILLS:-40} $(PROVE) -m slow tests/modeling/test_version_kills.py

version-memory: install-test ## a version and its diff within bounded memory (VERSION_ROWS=60000 for fewer)
	@VERSION_ROWS=$${VERSION_ROWS:-1000000} $(PROVE) -m slow tests/modeling/test_version_memory.py

hostile: install-test ## all hostile files, each through the limited child
	@$(PROVE) -m slow tests/core/test_hostile_files.py

fuzz: install-test ## files mutated at random through the limited child (FUZZ=1000 for fewer)
	@FUZZ=$${FUZZ:-100000} $(PROVE) tests/core/test_fuzz.py

inspection-kills: install-test ## kill -9 of workers in the middle of an inspection (INSPECTION_KILLS=3 for fewer)
	@INSPECTION_KILLS=$${INSPECTION_KILLS:-30} $(PROVE) -m slow tests/modeling/test_inspection_kills.py

seals: install-test ## bits flipped, streams cut and spliced, two keys for one ciphertext, repeated salts
	@SEALS=full $(PROVE) tests/tenants/test_seals.py

restores: install-test ## shred, restore the backup, replay what was destroyed (RESTORES=2 for fewer)
	@RESTORES=$${RESTORES:-6} $(PROVE) -m slow tests/modeling/test_restores.py

proofs: kills zombies races tampering audit batches disconnects engine-kills usage-loss revocations flood moves upload-kills canary version-kills version-memory rotations own-keys hostile fuzz inspection-kills seals restores ## all of them

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

install-backends: install-test
	@cmp -s docker/backends.txt .venv-backends/.stamp || { \
	    "$(BIN)/python" -m venv --clear .venv-backends && \
	    .venv-backends/bin/pip install --quiet --disable-pip-version-check -r docker/backends.txt && \
	    .venv-backends/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec && \
	    cp docker/backends.txt .venv-backends/.stamp; }

backends: install-backends ## llama.cpp and vLLM behind our gateway's calls (4 GB of them are installed)
	@exec "$(BIN)/python" -m pytest -m slow tests/serving/test_backends_real.py $(ARGS)

install-peers: install-bench
	@cmp -s tests/bench/peers/requirements.txt .venv-peers/.stamp || { \
	    "$(BIN)/python" -m venv --clear .venv-peers && \
	    .venv-peers/bin/pip install --quiet --disable-pip-version-check -r tests/bench/peers/requirements.txt && \
	    cp tests/bench/peers/requirements.txt .venv-peers/.stamp; }

bench-peers: install-peers ## /v1/classify beside FastAPI, LitServe, BentoML and Ray Serve with the same classifier
	@PYTHONPATH=. "$(BIN)/python" -m tests.bench.peers.compare $(ARGS)
