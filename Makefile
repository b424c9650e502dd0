# Concerto's commands. `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin
CODE := servicekit services gateway local deploy tests benchmarks conftest.py
CODE := $(wildcard $(CODE))
# Tests and checks never see a developer's own settings.
CLEAN_ENV := env CONCERTO_ENV_FILE=/dev/null
# Tests wait about as long as they compute. Each worker has suites of its own; a file's tests stay together, and files keep
# their order, in which the short ones are the last.
WORKERS ?= 4
# What people set for other programs must not lead ours astray: these change what Python, Node, git, libpq and test runners do.
OTHER_PROGRAMS := PYTHON% PG% GIT_% NODE_OPTIONS NODE_PATH NODE_ENV VIRTUAL_ENV PYTEST_% MYPY% RUFF_% VITEST_% SSLKEYLOGFILE
unexport $(filter-out PYTHON,$(filter $(OTHER_PROGRAMS),$(.VARIABLES)))
# In another encoding a Python does not start where the folder's name has letters that are not in that.
unexport LC_ALL
export LC_CTYPE := $(if $(filter Darwin,$(shell uname)),UTF-8,C.UTF-8)
SIDE_BY_SIDE = --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 10
WEB_TOOLS := cd web && PATH="$(CURDIR)/.node:$$PATH"
BUF := PATH="$(CURDIR)/.node:$$PATH" node_modules/.bin/buf
CONTRACT := gen/concerto/descriptors.binpb
LANDED := protos/landed.binpb

.DEFAULT_GOAL := help
.PHONY: help setup tools up down status doctor test test-long test-replicas pytest webtest webtest-beside lint lint-python lint-contract lint-web contract-landed browser test-clients test-deploy images test-containers screenshots bench migration parts format lock lock-clients clean

help: ## List these commands
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: ## Install what is missing (fast when nothing is)
	@$(PYTHON) -I -X utf8 local/setup/bootstrap.py

tools: # What commands need that have nothing to do with the web app
	@$(PYTHON) -I -X utf8 local/setup/bootstrap.py --no-web

up: setup ## Set everything up and run the suite; Ctrl-C stops it
	@exec $(BIN)/concerto up

down: tools ## Stop the suite
	@$(BIN)/concerto down

status: tools ## Show what runs
	@$(BIN)/concerto status

doctor: tools ## Check this machine and the settings
	@$(BIN)/concerto doctor

test: tools ## Set everything up, check the code and run the tests
	@$(MAKE) --no-print-directory --jobs 3 --output-sync=target setup lint browser
	@$(MAKE) --no-print-directory --jobs 2 webtest-beside pytest ARGS="$(SIDE_BY_SIDE)"

test-long: WORKERS = 2
test-long: setup browser ## Run the long tests: many deaths, a rolling restart, every page, other modes
	@$(MAKE) --no-print-directory pytest ARGS="--long -m 'long and not alone' $(SIDE_BY_SIDE)"
	@$(MAKE) --no-print-directory pytest ARGS="--long -m alone"

test-replicas: WORKERS = 3
test-replicas: setup ## Run what differs by mode once more, with two processes for each of our parts
	@$(MAKE) --no-print-directory pytest ARGS="tests/integration tests/e2e --mode processes --replicas 2 \
		-m 'not own_mode' --ignore-glob='*/test_database_*' $(SIDE_BY_SIDE)"

pytest: setup ## Run the tests only; ARGS="-k name" chooses
	@$(CLEAN_ENV) $(BIN)/pytest $(ARGS)

webtest: setup ## Run the web app's component tests only; ARGS="lib/auth" chooses
	@$(WEB_TOOLS) node_modules/.bin/vitest run $(ARGS)

# What it says stands together, in front of or behind the lines of the tests beside it.
webtest-beside:
	@$(MAKE) --no-print-directory --output-sync=target webtest ARGS=

lint: lint-python lint-contract lint-web ## Check style, types, SQL and contracts, of the web app too

lint-python: tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(CLEAN_ENV) $(BIN)/mypy

lint-contract: tools
	$(BIN)/sqlfluff lint supabase
	$(BUF) lint $(CONTRACT) --config buf.yaml --path concerto
	$(BUF) breaking $(CONTRACT) --against $(LANDED) --config buf.yaml --against-config buf.yaml --path concerto

lint-web: setup
	$(WEB_TOOLS) node_modules/.bin/biome check --error-on-warnings .
	$(WEB_TOOLS) node_modules/.bin/tsc --noEmit

contract-landed: setup ## Write down the contract as it is now as the one that later changes must be compatible with
	$(BUF) build $(CONTRACT) --exclude-source-info --output $(LANDED)

browser: tools # The tests of the web app drive a Chromium of this machine.
	@$(BIN)/python -m local.setup.browser

test-clients: tools ## Run real client libraries against a suite, a line for each feature; ARGS="openai" chooses
	@$(CLEAN_ENV) $(BIN)/python -m tests.clients $(ARGS)

test-deploy: tools ## Check the Dockerfile, the compose file and the Kubernetes manifests
	@$(CLEAN_ENV) $(BIN)/python -m deploy.check

images: tools ## Build the images with podman, as root on Debian
	@$(CLEAN_ENV) $(BIN)/python -m deploy.containers --images

test-containers: tools ## Build the images and run the compose file with podman, as root on Debian
	@$(CLEAN_ENV) $(BIN)/python -m deploy.containers $(ARGS)

screenshots: setup browser ## Write pictures of every page of the web app into web/screenshots/
	@$(CLEAN_ENV) $(BIN)/python -m tests.web.screenshots $(ARGS)

bench: ## Measure the suite beside its references; QUICK=1 takes less than 5 minutes, ARGS="unary" chooses
	@$(PYTHON) -m benchmarks.load.wrk $(ARGS)
	@$(MAKE) --no-print-directory setup
	@$(CLEAN_ENV) $(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(ARGS)

migration: tools ## Write a migration from what supabase/schemas changes; NAME=what_changes
	@$(CLEAN_ENV) $(BIN)/python -m local.migrations.difference "$(NAME)"

parts: tools ## Write what depends on services/parts.toml: images, compose file, manifests
	@$(CLEAN_ENV) $(BIN)/python -m deploy.parts

format: setup ## Put the code into its standard form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(WEB_TOOLS) node_modules/.bin/biome check --write .

lock: tools ## Resolve the dependencies anew into requirements.lock and both package-lock.json
	$(BIN)/python -m local.setup.lock
	$(BIN)/python -m deploy.tools

lock-clients: tools ## Lock the newest versions of what tests/clients/ holds; ARGS="openai-node" chooses
	$(BIN)/python -m tests.clients.lock $(ARGS)

clean: ## Delete what set-up and tests made; the data in .concerto/ stays
	rm -rf .venv .node .clients node_modules gen build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf $(addprefix web/,node_modules .next out screenshots openapi.json next-env.d.ts tsconfig.tsbuildinfo)
	rm -f web/lib/api/schema.d.ts web/lib/api/limits.ts web/lib/api/.schema
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
