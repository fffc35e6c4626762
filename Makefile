# make demo: install, make the phantom, train, test with points and boxes, draw.   make test: install, run the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= work_dirs/demo
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help install demo test test-fast lint clean

help:
	@echo "make demo | make install | make test | make test-fast | make lint | make clean"

install: $(VENV)/.installed

# What training and prediction need; the demo waits for no more.
$(VENV)/.core: setup.py requirements.txt constraints.txt
	$(PYTHON) -c "import sys; sys.exit(0 if (3, 10) <= sys.version_info < (3, 13) else 'UltraSam needs Python 3.10 to 3.12, found ' + sys.version.split()[0] + '; run make PYTHON=python3.11')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

# The page, export, adapters, further encoders.
$(VENV)/.installed: $(VENV)/.core
	$(PIP) -e '.[all]'
	touch $@

$(VENV)/.test: $(VENV)/.core
	$(PIP) -e '.[test]'
	touch $@

demo: $(VENV)/.core
	$(BIN)/ultrasam demo --out $(DEMO)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadscope

test-fast: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadscope -m "not slow"

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
