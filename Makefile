# Start with `make demo` and `make test`. Needs Python 3.11, 3.12 or 3.13. Everything is installed into .venv.

VENV ?= .venv
CONSTRAINTS ?= constraints.txt
HOME_DIR ?= $(if $(filter-out 0,$(LIVE)),.demo/live,.demo)
PORT ?= 8080
ARGS ?=
LAST_FAILED := $(if $(AGAIN),-n0 -x --last-failed --last-failed-no-failures none)

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := $(VENV)/.peers
BENCH := $(VENV)/.bench
BROWSER := $(VENV)/.browser
DOCS := $(VENV)/.docs
CLUSTER := .venv-cluster/.installed
FIND_PYTHON := for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	if $$python -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; \
	then echo $$python; break; fi; done
GROUP = $(BIN)/python -c 'import sys, tomllib; \
	print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"][sys.argv[1]], sep="\n")'
PIP = $(BIN)/python -m pip install -qq --disable-pip-version-check -c $(CONSTRAINTS)

# Every command and many tests start Python. Without compiled modules, each start takes half a second longer.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo airflow test browser cluster-test docs bench soak lint clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: $(STAMP) ## create the virtual environment .venv with pinned packages

demo: $(STAMP) ## label 338 support tickets on real Airflow, offline; LIVE=1 uses the real API and OPENAI_API_KEY
	@$(BIN)/airflow-batch demo --home $(HOME_DIR) $(if $(filter-out 0,$(LIVE)),--live) $(ARGS)

airflow: $(STAMP) ## start a full Airflow with the same DAGs, until Ctrl-C; PORT=8080; LIVE=1 says first what may be spent
	@$(BIN)/airflow-batch demo --airflow --port $(PORT) --home $(HOME_DIR) $(if $(filter-out 0,$(LIVE)),--live) $(ARGS)

test: $(PEERS) ## run the tests; ARGS="-k word" selects some, ARGS=-n0 runs them one at a time
	@$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder -m "not browser" $(ARGS) $(LAST_FAILED)

browser: $(BROWSER) ## test the trigger form and the page of the jobs in Chromium; BATCH_SCREENSHOTS=folder saves screenshots
	@$(BIN)/python -m pytest -m browser $(ARGS) $(LAST_FAILED)

cluster-test: $(CLUSTER) ## kill parts of a cluster with the CeleryExecutor, two workers and two triggerers; ARGS="--only worker"
	@.venv-cluster/bin/python -m tests.cluster $(ARGS)

docs: $(DOCS) ## build the documentation site in build/site; a warning, such as a broken link, is an error
	@$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs build/site

bench: $(BENCH) ## measure sealing, landing and waiting beside other tools, about an hour; ARGS="--rows 1000000 --runs 1"
	@$(BIN)/python -m benchmarks.sealing --json build/bench/sealing.json $(ARGS)
	@$(BIN)/python -m benchmarks.sources --json build/bench/sources.json $(ARGS)
	@$(BIN)/python -m benchmarks.collecting --json build/bench/collecting.json
	@$(BIN)/python -m benchmarks.landing --json build/bench/landing.json $(ARGS)
	@$(BIN)/python -m benchmarks.object_store --json build/bench/object_store.json
	@$(BIN)/python -m benchmarks.transfers --json build/bench/transfers.json
	@$(BIN)/python -m benchmarks.soak --rows 100000 --json build/bench/job.json
	@$(BIN)/python -m benchmarks.parsing --json build/bench/parsing.json
	@$(BIN)/python -m benchmarks.triggers --json build/bench/triggers.json
	@$(BIN)/python -m benchmarks.eval_nights --json build/bench/eval_nights.json
	@$(BIN)/python -m benchmarks.grading --json build/bench/grading.json
	@$(BIN)/python -m benchmarks.deadlines --json build/bench/deadlines.json
	@$(BIN)/python -m benchmarks.ranges --json build/bench/ranges.json
	@$(BIN)/python -m benchmarks.tokens --json build/bench/tokens.json
	@$(BIN)/python -m benchmarks.page --json build/bench/page.json

soak: $(BENCH) ## check at scale that nothing is lost: a million rows, 700 rounds of chaos, 100 waits; ARGS="--rows 20000"
	@$(BIN)/python -m benchmarks.soak --json build/bench/soak.json $(ARGS)
	@$(BIN)/python -m tests.chaos --rounds 500
	@$(BIN)/python -m tests.chaos --budgets --rounds 200
	@BATCH_TEST_WAITS=100 $(BIN)/python -m pytest tests/airflow/test_many_waits.py tests/airflow/test_standalone.py

lint: $(STAMP) ## check format, style, types and import rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

clean: ## remove everything that these commands created
	rm -rf .venv .venv-oldest .venv-cluster .demo build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml $(CONSTRAINTS)
	@python=$$($(FIND_PYTHON)); \
	if [ -z "$$python" ]; then \
		echo "Found no Python 3.11, 3.12 or 3.13 with venv. Install one (on Debian and Ubuntu also python3-venv)," >&2; \
		echo "or say which one to use: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; \
	fi; \
	echo "Setting up $(VENV) with $$($$python --version). This takes a few minutes, but only the first time."; \
	$$python -m venv --clear $(VENV)
	@$(GROUP) dev > $(VENV)/dev.txt
	@$(PIP) --editable '.[demo,duckdb,postgres,sqlite]' --requirement $(VENV)/dev.txt
	@touch $@

$(PEERS): $(STAMP)
	@$(GROUP) peers > $(VENV)/peers.txt
	@$(PIP) --requirement $(VENV)/peers.txt
	@touch $@

$(BROWSER): $(STAMP)
	@$(GROUP) browser > $(VENV)/browser.txt
	@$(PIP) --requirement $(VENV)/browser.txt
	@touch $@

$(DOCS): $(STAMP)
	@$(GROUP) docs > $(VENV)/docs.txt
	@$(PIP) --requirement $(VENV)/docs.txt
	@touch $@

$(BENCH): $(PEERS)
	@$(GROUP) bench > $(VENV)/bench.txt
	@$(PIP) --requirement $(VENV)/bench.txt
	@touch $@

# Of its own, so that the tests and the demo run without the providers of Amazon and Celery.
$(CLUSTER): pyproject.toml $(CONSTRAINTS)
	@python=$$($(FIND_PYTHON)); echo "Setting up .venv-cluster with $$($$python --version)."; $$python -m venv --clear .venv-cluster
	@.venv-cluster/bin/python -c 'import tomllib; \
		print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["cluster"], sep="\n")' > .venv-cluster/cluster.txt
	@.venv-cluster/bin/python -m pip install -qq --disable-pip-version-check -c $(CONSTRAINTS) \
		--editable '.[demo,postgres]' --requirement .venv-cluster/cluster.txt
	@touch $@
