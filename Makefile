# The verbs of the project: the same for people, hooks and CI. `make help` is the manual.
#
# Each verb is complete on its own from a fresh clone. What it needs is built once into .venv and remembered by stamps
# there: .ready (the environment and maturin), .built (the extension, release profile: what is measured is what runs)
# and .has-NAME (the packages of the extra NAME in pyproject.toml). A stamp is older than what it was made from: made anew.

PYTHON ?= python3
ARGS ?=
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check --quiet
RUST := Cargo.toml Cargo.lock python/flowyml/_core.pyi $(shell find rust -name '*.rs')
EXTENSION := $(wildcard python/flowyml/_core*.so python/flowyml/_core*.dylib)

# rustup may have put cargo where a non-login shell does not look.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin
# One interpreter and one profile for maturin and clippy, so that neither rebuilds what the other built.
export PYO3_PYTHON := $(abspath $(RUN))

# Hundreds of processes import the same modules: where the environment forbids bytecode, each would compile them anew.
COMPILED := env -u PYTHONDONTWRITEBYTECODE

# How many processes run the tests, 0 is this one; tests/support/exclusive_tests.py tells which tests run alone.
WORKERS ?= 2
SIDE_BY_SIDE := -n $(WORKERS) --dist loadfile -o console_output_style=classic

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo docs test soak compat mutants lint bench bench-peers bench-instructions bench-faults wheel develop format lock hooks clean rust-tools always
.PHONY: lint-rust lint-types lint-use lint-forms lint-deny

help: ## list the verbs
	@echo "flowyml: make VERB, where VERB is one of"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "PYTHON=... chooses the interpreter (3.11 or newer) of a new environment, VENV=... says where that is (.venv),"
	@echo "ARGS=... is passed to demo, docs, test, compat, mutants and bench."

demo: $(VENV)/.built $(VENV)/.has-demo ## a year of real flights, one step a month, on process workers
	@$(RUN) examples/flights.py $(ARGS)

test: $(VENV)/.built $(VENV)/.has-test $(VENV)/.has-bench ## all tests: the core without Python, then the whole Python suite (WORKERS=0 for one process)
	cargo test
	@.ci/core-is-pure
	$(COMPILED) $(RUN) -m pytest $(SIDE_BY_SIDE) --durations=25 $(ARGS)

soak: $(VENV)/.built $(VENV)/.has-test ## all that is drawn, at length; runs full of faults for half an hour; hundreds of killed drivers (ARGS="--minutes 5")
	PROPTEST_CASES=20000 cargo test --test results bytes
	FLOWYML_SLOW=1 $(COMPILED) $(RUN) -m pytest $(SIDE_BY_SIDE) -m hypothesis -o timeout=900
	$(RUN) tests/faults/soak.py $(ARGS)

compat: $(VENV)/.built $(VENV)/.has-test $(VENV)/.has-compat ## dask's own tests with flowyml as dask's scheduler, on each backend; prints a table
	$(COMPILED) $(RUN) tests/compat/dask_suite.py --workers $(WORKERS) $(ARGS)

lint: $(VENV)/.built $(VENV)/.has-lint ## formats, ruff, types, layers, names, prose, the stub of the extension, clippy, cargo-deny
	@$(MAKE) --no-print-directory --keep-going --jobs=$(words $(LINTERS)) $(TOGETHER) $(LINTERS)

# Side by side, each one's output in one piece where this make can do that (from 4.0 on).
LINTERS := lint-rust lint-types lint-use lint-forms lint-deny
TOGETHER := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

lint-rust:
	cargo fmt --check
	cargo clippy --quiet --all-targets --features instructions -- -D warnings
	cargo clippy --quiet --release --lib --features python -- -D warnings

lint-types:
	$(RUN) -m mypy
	$(RUN) -m mypy.stubtest flowyml._core

lint-use:
	$(RUN) -m pyright --warnings

lint-forms:
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(VENV)/bin/lint-imports --no-logo
	$(RUN) .ci/names.py
	$(RUN) .ci/prose.py

lint-deny: $(VENV)/.has-cargo-deny
	PATH=$(abspath $(VENV))/bin:$$PATH cargo deny --locked --log-level warn check licenses bans sources

mutants: $(VENV)/.has-mutants rust-tools ## mutation testing of the pure core: a test must fail for each mutant (ARGS="--re scheduler/expand")
	@.ci/toolchain mutants
	nice $(RUN) tests/mutants/suite.py $(ARGS)

bench: $(VENV)/.built $(VENV)/.has-bench ## measure every backend beside its baselines; prints a table, writes JSON
	$(RUN) benches/run.py $(ARGS)

bench-peers: $(VENV)/.built $(VENV)/.has-bench $(VENV)/.has-peers ## the same steps on the engines that one could use instead
	$(RUN) benches/run.py --peers $(ARGS)

bench-instructions: rust-tools ## count the instructions of the core's hot paths, compare with the table
	$(PYTHON) benches/instructions.py $(ARGS)

bench-faults: $(VENV)/.built $(VENV)/.has-peers ## the same faults for every pool that one could use instead; prints a table
	$(RUN) benches/faults/run.py $(ARGS)

docs: $(VENV)/.ready $(VENV)/.has-docs ## build the documentation site into site/; a broken link or a missing reference is an error
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet $(ARGS)
	@! grep -rlE '<(script|link|img)[^>]+(src|href)="https?:' site --include='*.html' || \
		{ echo "flowyml: these pages load files from the network"; exit 1; }
	@echo "flowyml: open site/index.html"

wheel: $(VENV)/.ready rust-tools ## build the release wheel into dist/ and test it installed, outside the checkout
	@.ci/wheel $(RUN) $(ARGS)

develop: $(VENV)/.built $(VENV)/.has-demo $(VENV)/.has-test $(VENV)/.has-lint $(VENV)/.has-bench ## everything into .venv, package editable

format: $(VENV)/.has-lint rust-tools ## write the formats that lint checks
	cargo fmt
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

lock: $(VENV)/.ready ## resolve the extras anew into requirements.lock
	@.ci/lock $(PYTHON) requirements.lock

hooks: ## let git run lint before each commit
	git config core.hooksPath .githooks

clean: ## remove what was built
	rm -rf $(VENV) dist site target .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	rm -f python/flowyml/_core*.so python/flowyml/_core*.dylib

# ---- what the verbs stand on -------------------------------------------------------------------------------------

rust-tools:
	@.ci/toolchain rust

$(VENV)/.ready: requirements.lock
	@.ci/toolchain python $(PYTHON)
	@echo "flowyml: making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --constraint requirements.lock maturin
	@touch $@

$(VENV)/.built: $(VENV)/.ready pyproject.toml $(RUST) $(if $(EXTENSION),,always) | rust-tools
	@echo "flowyml: building the extension in release mode"
	@VIRTUAL_ENV=$(abspath $(VENV)) PIP_QUIET=1 $(VENV)/bin/maturin develop --release --quiet
	@touch $@

# Built from source (3.5 minutes of CPU) unless it is installed: published wheels are too old for this Cargo.lock.
$(VENV)/.has-cargo-deny: $(VENV)/.ready | rust-tools
	@cargo deny --version >/dev/null 2>&1 || { echo "flowyml: building cargo-deny once; this takes some minutes"; \
		cargo install --quiet --locked --root $(VENV) cargo-deny@0.20.2; }
	@touch $@

$(VENV)/.has-%: $(VENV)/.ready pyproject.toml
	@echo "flowyml: installing what \`$*\` needs"
	@$(RUN) .ci/extra.py $* | $(PIP) install --constraint requirements.lock --requirement /dev/stdin
	@touch $@
