# `make demo` shows what the library does, `make test` checks it, `make docs` makes a site of its pages in site/. Each sets
# itself up in .venv. While working: `make check`, lint, types and quick tests in less than a minute. Before a release:
# `make test-all`, also the tests that take long or need an environment of their own.
#
#   TORCH=cpu    torch's CPU build (about 0.2 GB to download)
#   TORCH=cuda   torch's CUDA build (about 3 GB to download; Linux with an NVIDIA GPU)
# Without it: cuda where nvidia-smi is found, else cpu. macOS has one build, and the switch changes nothing there.

PYTHON ?= python3
TORCH ?= $(if $(shell command -v nvidia-smi),cuda,cpu)
CPU_BUILDS := https://download.pytorch.org/whl/cpu

BIN := .venv/bin
QUICK := $(addprefix tests/,test_config.py data/test_base.py nn/test_penalties.py nn/test_noise.py metrics/test_factor_vae.py \
	metrics/test_sampling.py viewer/test_session.py training/test_joint.py::test_the_loss_is_what_its_parts_say)
PIP := $(BIN)/python -m pip install --constraint constraints.txt
SOURCES := pyproject.toml constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo lint quick check test test-all docs clean

demo: .venv/.demo-$(TORCH)
	$(BIN)/unweave demo

lint: .venv/.test-$(TORCH)
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

check: .venv/.test-$(TORCH)
	$(MAKE) --no-print-directory --jobs 2 lint quick

quick: .venv/.test-$(TORCH)
	$(BIN)/python -m pytest -n 0 $(QUICK)

test: lint
	$(BIN)/python -m pytest $(PYTEST)

test-all: lint
	$(BIN)/python -m pytest -m 'slow or not slow' $(PYTEST)

docs: .venv/.docs-$(TORCH)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo 'open site/index.html; to search too: $(BIN)/python -m http.server --bind 127.0.0.1 --directory site'

.venv/.demo-$(TORCH): $(SOURCES)
ifeq ($(filter $(TORCH),cpu cuda),)
	$(error TORCH is '$(TORCH)': choose cpu or cuda)
endif
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv --clear .venv
	$(PIP) $(if $(filter cpu,$(TORCH)),--extra-index-url $(CPU_BUILDS) --retries 1) torch
	$(PIP) --editable .
	touch $@

.venv/.test-$(TORCH): .venv/.demo-$(TORCH)
	$(PIP) --editable '.[dev]'
	touch $@

.venv/.docs-$(TORCH): .venv/.demo-$(TORCH)
	$(PIP) --editable '.[docs]'
	touch $@

clean:
	rm -rf .venv build dist site
