# Concerto's commands. `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin
CODE := servicekit services gateway local tests benchmarks conftest.py
CODE := $(wildcard $(CODE))
# Tests and checks never see a developer's own settings.
CLEAN_ENV := env CONCERTO_ENV_FILE=/dev/null

.DEFAULT_GOAL := help
.PHONY: help setup up down status doctor test pytest lint bench format lock clean

help: ## List these commands
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: ## Install what is missing (fast when nothing is)
	@$(PYTHON) local/bootstrap.py

up: setup ## Set everything up and run the suite; Ctrl-C stops it
	@exec $(BIN)/concerto up

down: setup ## Stop the suite
	@$(BIN)/concerto down

status: setup ## Show what runs
	@$(BIN)/concerto status

doctor: setup ## Check this machine and the settings
	@$(BIN)/concerto doctor

test: setup ## Set everything up, check the code and run every test
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory pytest

pytest: setup ## Run the tests only; ARGS="-k name" chooses
	@$(CLEAN_ENV) $(BIN)/pytest $(ARGS)

lint: setup ## Check style, types, SQL and contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(CLEAN_ENV) $(BIN)/mypy
	$(BIN)/sqlfluff lint supabase
	PATH="$(CURDIR)/.node:$$PATH" node_modules/.bin/buf lint gen/concerto/descriptors.binpb --config buf.yaml --path concerto

bench: setup ## Measure the suite beside its references; QUICK=1 takes less than 5 minutes, ARGS="unary" chooses
	@$(CLEAN_ENV) $(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(ARGS)

format: setup ## Put the code into its standard form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: setup ## Resolve the dependencies anew into requirements.lock and package-lock.json
	$(BIN)/python -m local.lock

clean: ## Delete what set-up and tests made; the data in .concerto/ stays
	rm -rf .venv .node node_modules gen build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
