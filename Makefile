# `make demo` and `make test` bring everything that they need; `make help` lists the rest.
# PYTHON=/path/to/python3.12 chooses the interpreter of .venv; otherwise the first of Python 3.11 to 3.13 found.
PYTHON ?=
export PYTHON

.DEFAULT_GOAL := help
.PHONY: demo test lint clean help

demo: .venv/ready  ## act and imagine with the small model that comes with the package
	.venv/bin/xwam demo

test: lint  ## all tests that need no GPU, no published weights and no further simulator
	OMP_NUM_THREADS=1 .venv/bin/pytest -q -n 2

lint: .venv/ready  ## style
	.venv/bin/ruff check .

clean:  ## remove the environment and all caches
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## */  make \1\t/'

.venv/ready: pyproject.toml constraints.txt scripts/setup.sh
	scripts/setup.sh
