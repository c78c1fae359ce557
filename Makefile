# make demo    score real radiographs on this machine's CPU; needs Python 3.10 or newer and make
# make test    lint, types and tests; installs PyTorch (5.5 GB) and tensorrt-rtx into .venv
# IMAGES=folder make demo    score that folder as well

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
DEMO := build/demo
RADIOGRAPHS := $(DEMO)/radiographs
SCORE := $(BIN)/cxr-trt score --engine build/demo.cxr --table --overwrite

.PHONY: demo test test-slow test-oldest lint benchmark-cpu plugin-mutants demo-model clean

demo: build/demo.cxr $(RADIOGRAPHS)
	$(SCORE) $(RADIOGRAPHS) --output $(DEMO)/scores.csv --heatmaps $(DEMO)/heatmaps
	@echo; echo "The pictures, one for each of the three highest findings:"; ls $(DEMO)/heatmaps/*/*.png
ifdef IMAGES
	$(SCORE) "$(IMAGES)" --output $(DEMO)/images.csv --heatmaps $(DEMO)/images || test $$? -eq 1
endif

test: lint
	$(BIN)/python -m pytest -m "not slow"

test-slow: .venv/dev
	$(BIN)/python -m pytest -m slow

# The oldest supported Python and dependencies, without PyTorch; needs python3.10.
test-oldest:
	python3.10 -m venv .venv-oldest
	.venv-oldest/bin/pip install --quiet --constraint tests/oldest.txt --editable . pydicom-data==1.0.0 pytest hypothesis
	.venv-oldest/bin/python -m pytest --ignore tests/model --ignore tests/export/test_scoring_graph.py

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

build/demo.cxr: .venv/base cxr_trt/models/demo.onnx cxr_trt/spec.py $(wildcard cxr_trt/engine/*.py)
	$(BIN)/cxr-trt build-engine cxr_trt/models/demo.onnx --output $@ --overwrite
	@touch $@

# Chest radiographs of the PyPI package pydicom-data (MIT), uncompressed and in JPEG 2000.
$(RADIOGRAPHS): .venv/base
	@mkdir -p $@
	for name in RG1_UNCR RG1_J2KR; do \
	    cp "$$($(BIN)/python -c 'import data_store; print(data_store.__path__[0])')/data/$$name.dcm" $@ || exit; done
	@touch $@

.venv/base: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "cxr-trt needs Python 3.10 or newer; try make PYTHON=python3.11")'
	@echo "installing the base dependencies into .venv (about a minute) ..."
	$(PYTHON) -m venv .venv
	$(PIP) --editable . pydicom-data==1.0.0
	@touch $@

.venv/dev: .venv/base
	@echo "installing PyTorch, tensorrt-rtx and the test tools into .venv (5.5 GB, a few minutes) ..."
	$(PIP) --editable '.[dev]' torch==2.14.1 torchvision==0.29.1
	@touch $@

benchmark-cpu: .venv/base
	$(BIN)/python benchmarks/cpu_backends.py

# Plants bugs in the CUDA kernel and says which tests see them; needs g++ and nvcc.
plugin-mutants: .venv/dev
	$(BIN)/python tests/plugins/mutants.py

demo-model: .venv/dev
	$(BIN)/python -m train.untrained cxr_trt/models/demo.onnx

clean:
	rm -rf build dist
