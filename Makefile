# Everything from a fresh checkout. Needs make and Python >= 3.11; all else is installed here:
# a virtual environment in .venv and, as root on Debian, the libraries Qt needs.
#
#   make demo        the whole analysis on sample data, in napari (a screenshot where no display is)
#   make test        all tests, GUI tests included (under Xvfb where no display is)
#   make test-pyside6  the tests of the window with the other Qt binding
#   make test-lowest   those, and of files and formats, with the lowest versions that are allowed
#   make lint        ruff, mypy, npe2 validate
#   make build       wheel and sdist, each installed alone and tried in napari (PyQt6, PySide6)
#   make screenshots the figures of docs/
#   make benchmark   the figures of benchmarks/
#   make clean       removes what was made, .venv included
#
# PyPI's torch for Linux carries CUDA (several GB). The CPU build comes from PyTorch's own index:
#   make demo PIP_EXTRA_INDEX=https://download.pytorch.org/whl/cpu

SHELL := /bin/bash
# Without files of bytecode, pytest would compile all of napari again for each file of tests.
unexport PYTHONDONTWRITEBYTECODE
.DELETE_ON_ERROR:

is_recent := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
ifndef PYTHON
PYTHON := $(shell for python in python3.11 python3 python3.12 python3.13 python; do \
	$$python $(is_recent) 2>/dev/null && { echo $$python; break; }; done)
endif
PIP_EXTRA_INDEX ?=

BIN := .venv/bin
INSTALLED := .venv/.installed
PIP_INSTALL = -m pip install --disable-pip-version-check -c constraints.txt \
	$(if $(PIP_EXTRA_INDEX),--extra-index-url $(PIP_EXTRA_INDEX))

# Only Linux needs a display server to be told of; a laptop's screen at least, as users have.
HEADLESS := $(if $(DISPLAY)$(WAYLAND_DISPLAY)$(filter-out Linux,$(shell uname)),,yes)
XVFB := $(if $(HEADLESS),xvfb-run -a -s "-screen 0 1366x768x24")

.PHONY: demo test test-core test-window test-pyside6 test-lowest lint build screenshots benchmark clean system

$(INSTALLED): pyproject.toml constraints.txt | system
	@test -n "$(PYTHON)" || { echo "No Python >= 3.11 found; give one: make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python $(PIP_INSTALL) -e ".[all,em,spm,dask,dev]"
	touch $@

system:
	@PYTHON="$(PYTHON)" HEADLESS="$(HEADLESS)" scripts/system-packages

demo: $(INSTALLED)
ifeq ($(HEADLESS),yes)
	@mkdir -p build && rm -f build/demo.png
	$(XVFB) $(BIN)/napari-shiftvae demo --screenshot build/demo.png
	@test -s build/demo.png && echo "Screenshot: $(CURDIR)/build/demo.png"
else
	$(BIN)/napari-shiftvae demo
endif

# Two halves, which `make --jobs=2 test` runs side by side: most tests use one core.
test: test-core test-window

test-core: $(INSTALLED)
	$(XVFB) $(BIN)/python -m pytest $(addprefix --ignore=,$(GUI_TESTS))

test-window: $(INSTALLED)
	$(XVFB) $(BIN)/python -m pytest $(GUI_TESTS)

GUI_TESTS := $(sort $(wildcard tests/test_widgets*.py tests/test_faults*.py)) tests/test_bad_input.py
FILE_TESTS := $(addprefix tests/test_,images.py positions.py layers.py manifest.py runfile.py \
	runfile_refused.py cli.py cli_mistakes.py cli_faults.py)
WINDOW_TESTS := $(addprefix tests/test_widgets,.py _finding.py _training.py _results.py _header.py)

# $(1) environment, $(2) test files. Few files a process, and PySide6 below 6.10: with 6.12 on Python 3.11,
# a process that has opened some dozens of viewers may crash in Qt itself.
define few_files_a_process
	@failed=; while read -r files; do echo "$$files"; \
		$(XVFB) $(1)/bin/python -m pytest -q $$files </dev/null || failed="$$failed $$files"; \
	done < <(xargs -n 4 <<< "$(2)"); \
	test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }
endef

build/pyside6/.installed: pyproject.toml constraints.txt | system
	$(PYTHON) -m venv build/pyside6
	build/pyside6/bin/python $(PIP_INSTALL) -e ".[em,spm,dask,dev]" "napari[pyside6]" "pyside6<6.10"
	touch $@

build/lowest/.installed: pyproject.toml constraints-lowest.txt | system
	$(PYTHON) -m venv build/lowest
	build/lowest/bin/python $(subst constraints.txt,constraints-lowest.txt,$(PIP_INSTALL)) \
		-e ".[all,em,spm,dask]" pytest pytest-qt hypothesis
	touch $@

test-pyside6: build/pyside6/.installed
	$(call few_files_a_process,build/pyside6,$(GUI_TESTS))

test-lowest: build/lowest/.installed
	$(call few_files_a_process,build/lowest,$(FILE_TESTS) $(WINDOW_TESTS))

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/npe2 validate src/napari_shiftvae/napari.yaml

# $(1) package, $(2) Qt binding: napari works with either, and so must the plugin
define smoke_test
	$(PYTHON) -m venv build/smoke-$(2)
	build/smoke-$(2)/bin/python $(PIP_INSTALL) $(1) "napari[$(2)]"
	$(XVFB) build/smoke-$(2)/bin/python -P scripts/smoke_test.py
endef

build: $(INSTALLED)
	rm -rf dist build/smoke-*
	$(BIN)/python -m build
	$(call smoke_test,dist/*.whl,pyqt6)
	$(call smoke_test,dist/*.tar.gz,pyside6)

screenshots: $(INSTALLED)
	$(XVFB) $(BIN)/python docs/screenshots.py

benchmark: $(INSTALLED)
	$(XVFB) $(BIN)/python benchmarks

clean:
	rm -rf .venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
