# `make demo` and `make test` do all set-up by themselves and can be run again and again.
PY      ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed

.PHONY: demo test bench check lock setup clean debian

setup: debian $(STAMP)

# Debian packages, only when root and only what is missing.
debian:
	@./scripts/debian-packages

$(STAMP): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PY) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup
	$(BIN)/followme demo --plot out/demo.png --json out/demo.json

test: setup check
	$(BIN)/pytest -n 2 tests/unit tests/property tests/interop --ignore tests/interop/test_takeover.py
	$(BIN)/pytest tests/interop/test_takeover.py tests/lab

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m bench

lock:
	$(BIN)/pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --extra dev --all-build-deps --generate-hashes --allow-unsafe --strip-extras \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header -o requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) .cache out .mypy_cache .ruff_cache .pytest_cache
