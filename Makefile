# demo: the whole thing on drawn products · venv: .venv alone
# check: lint and the quick tests, while you work · test: all tests · lint: ruff and mypy
# bench: requests a second under Unit, and what else is to hold (6 minutes)
# bench-scale: the same for 3.8 million products · bench-change: releases changing under load
# bench-extract: photos a second · bench-follow: how soon changes are live
# bench-index: a build with little changed against one from nothing
# bench-answers: conditions, hidden products and distinct photos beside the plain request

PYTHON ?= python3
PORT ?= 8080
BIN := .venv/bin
# A process a core. Each has its own fixtures, so that more than four gain little and take memory.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# What runs no real program and loads no network, and takes less than a second a test.
QUICK := not (slow or chromium or nginx or prometheus or ray or tensorflow or unit)

.PHONY: bench bench-answers bench-change bench-extract bench-follow bench-index bench-scale check demo lint test venv

demo: venv
	@$(BIN)/python -m lookalike_build.demo --port $(PORT)

check: lint
	@$(PYTEST) -q -m '$(QUICK)' tests/app tests/builder tests/test_*.py

test: venv
	@$(PYTEST)

bench: venv
	@PYTHONPATH=tests $(BIN)/python -m load.bench

bench-answers: venv
	@PYTHONPATH=tests $(BIN)/python -m load.answers

bench-extract: venv
	@$(BIN)/python -c 'import openvino' 2>/dev/null || \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@PYTHONPATH=tests $(BIN)/python -m load.extraction

bench-scale: venv
	@PYTHONPATH=tests $(BIN)/python -m load.scale

bench-change: venv
	@PYTHONPATH=tests $(BIN)/python -m load.change

bench-follow: venv
	@PYTHONPATH=tests $(BIN)/python -m load.follow

bench-index: venv
	@PYTHONPATH=tests $(BIN)/python -m load.index

lint: venv
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

venv: .venv/installed

.venv/installed: pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python is missing: sudo apt install python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V); give another: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "venv is missing: sudo apt install python3-venv"; exit 1; }
	@command -v c++ >/dev/null || command -v g++ >/dev/null || \
	  { echo "annoy is compiled at install, and a C++ compiler is missing: sudo apt install g++"; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || \
	  { echo "annoy is compiled at install, and Python's headers are missing: sudo apt install python3-dev"; exit 1; }
	@echo "installing into .venv (TensorFlow is large: this takes a few minutes the first time) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
