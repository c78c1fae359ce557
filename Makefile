# make demo    score real radiographs on this machine's CPU; needs Python 3.10 or newer and make
# make test    lint, types and tests; installs PyTorch (5.5 GB) and tensorrt-rtx into .venv
# IMAGES=folder make demo    score that folder as well

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
DEMO := build/demo
RADIOGRAPHS := $(DEMO)/radiographs
SCORE := $(BIN)/cxr-trt score --engine build/demo.cxr --table --overwrite
REPORT := $(BIN)/cxr-trt report --overwrite

.PHONY: demo docs pictures test test-slow test-oldest lint bench bench-avx2 bench-rewrites bench-start feed-rate growth frontier dense-gap train-dense roofline \
    parity sizes benchmark-heatmaps localization reliability report-assets plugin plugin-budget plugin-benchmark plugin-mutants \
    train-demo reproduce hostile faults fuzz soak false-alarms clean

demo: build/demo.cxr $(RADIOGRAPHS)
	$(SCORE) $(RADIOGRAPHS) --output $(DEMO)/scores.csv --heatmaps $(DEMO)/heatmaps --raw-maps
	$(REPORT) $(DEMO)/scores.csv --output $(DEMO)/report.html --images $(RADIOGRAPHS) --heatmaps $(DEMO)/heatmaps
	@echo; echo "The pictures, one for each of the three highest findings:"; ls $(DEMO)/heatmaps/*/*.png
	@echo; echo "All of it as a page: $(DEMO)/report.html"
ifdef IMAGES
	$(SCORE) "$(IMAGES)" --output $(DEMO)/images.csv --heatmaps $(DEMO)/images --raw-maps || test $$? -eq 1
	$(REPORT) $(DEMO)/images.csv --output $(DEMO)/images.html --images "$(IMAGES)" --heatmaps $(DEMO)/images
endif

# The documentation as a site in build/site; `make test` builds it too. A dead link, or a page that no navigation names,
# is an error.
docs: .venv/dev
	$(BIN)/python -m sphinx --fail-on-warning --nitpicky --fresh-env --write-all --quiet docs build/site

# The pictures in the README, of the demonstration's first radiograph; needs Chromium.
pictures: demo .venv/dev
	$(BIN)/python docs/pictures.py $(DEMO)

test: lint
	$(BIN)/python -m pytest -m "not slow" --durations 15

test-slow: .venv/dev
	$(BIN)/python -m pytest -m slow

# The oldest supported Python and dependencies, without PyTorch; needs python3.10.
test-oldest:
	python3.10 -m venv .venv-oldest
	.venv-oldest/bin/pip install --quiet --constraint tests/oldest.txt --editable '.[dicom-results]' pydicom-data==1.0.0 pytest hypothesis
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

# Each writes its page in docs/ and its numbers in benchmarks/results/, and wants an idle machine: the engines beside
# PyTorch and others, with CXR14_DIR in the environment also in int8; the rewrites of the graph, one by one; reading and
# decoding alone; up to 100,000 files.
bench: .venv/dev
	$(BIN)/python -m benchmarks.peers

# The same with no newer instructions than AVX2 for PyTorch and OpenVINO, on a processor that has them.
bench-avx2: .venv/dev
	$(BIN)/python -m benchmarks.peers --avx2 --json benchmarks/results/peers-avx2.json --page docs/benchmark-avx2.md

bench-rewrites: .venv/base
	$(BIN)/python -m benchmarks.rewrites

# What one X-ray takes from command to table, and the inference in it.
bench-start: .venv/base
	$(BIN)/python -m benchmarks.start

feed-rate: .venv/dev
	$(BIN)/python -m benchmarks.feed

growth: .venv/base
	$(BIN)/python -m benchmarks.growth

# What each view set costs and how well it scores: docs/views.md. Wants CXR14_DIR; half an hour on two processors.
frontier: .venv/base
	CXR14_DIR=$(CXR14_DIR) $(BIN)/python -m benchmarks.frontier

# Why dense views score otherwise than ten crops, gates or padding: docs/dense-gap.md. Wants CXR14_DIR; ten minutes.
dense-gap: .venv/dev
	CXR14_DIR=$(CXR14_DIR) $(BIN)/python -m benchmarks.dense_gap

# What one stretch of training on crops of varying size does for dense views: docs/views-dense.md. Wants CXR14_DIR; half
# an hour on two processors.
TRAINED_DENSE := build/train-dense
train-dense: .venv/dev
	$(BIN)/python -m train demo-dense $(DATA) --out $(TRAINED_DENSE) --start cxr_trt/models/demo.onnx
	$(BIN)/python -m train.publish $(TRAINED_DENSE)/last.safetensors $(TRAINED_DENSE)/demo-dense.onnx
	CXR14_DIR=$(CXR14_DIR) $(BIN)/python -m benchmarks.frontier --model $(TRAINED_DENSE)/demo-dense.onnx --views dense \
	    --title "the demonstration model after one stretch more on crops of varying size (recipe demo-dense)" \
	    --target train-dense --json benchmarks/results/views-dense.json --page docs/views-dense.md

# The least time that an X-ray can take on a GPU, by arithmetic and memory traffic: docs/roofline.md.
roofline: .venv/base
	$(BIN)/python -m benchmarks.roofline

# AUC of every precision and CPU backend against PyTorch on the test images of CXR14_DIR; hours, resumable.
parity: .venv/dev
	$(BIN)/python -m benchmarks.parity $(CXR14_DIR) build/parity

sizes: .venv/dev
	$(BIN)/python -m benchmarks.sizes

benchmark-heatmaps: .venv/base
	$(BIN)/python -m benchmarks.heatmaps

# Where the shipped model finds its findings, against 732 radiologists' boxes, a random map, the centre of the image and
# Grad-CAM: docs/localization.md. About 20 minutes on two processors; wants CXR14_DIR (below).
localization: .venv/dev
	$(BIN)/python -m benchmarks.localization $(CXR14_DIR)

# The shipped model's reliability diagram, docs/reliability.png: fitted on the validation images, drawn on the test
# images. About 20 minutes on two processors; wants CXR14_DIR (below).
RELIABILITY := build/reliability
reliability: .venv/dev
	$(BIN)/cxr-trt build-engine cxr_trt/models/demo.onnx --output $(RELIABILITY)/demo.cxr --overwrite
	for split in val test; do \
	    $(BIN)/python -m train.split $$split $(DATA) --out $(RELIABILITY)/$$split && \
	    $(BIN)/cxr-trt score $(RELIABILITY)/$$split/images --engine $(RELIABILITY)/demo.cxr \
	        --output $(RELIABILITY)/$$split.csv --overwrite || exit; done
	$(BIN)/cxr-trt calibrate $(RELIABILITY)/val.csv $(RELIABILITY)/val/labels.csv --engine $(RELIABILITY)/demo.cxr
	$(BIN)/cxr-trt score $(RELIABILITY)/test/images --engine $(RELIABILITY)/demo.cxr --output $(RELIABILITY)/test.csv
	$(BIN)/cxr-trt evaluate $(RELIABILITY)/test.csv $(RELIABILITY)/test/labels.csv --overwrite \
	    --reliability docs/reliability.png --json $(RELIABILITY)/test.json
	cp $(RELIABILITY)/test.json benchmarks/results/reliability.json
	$(BIN)/python -c "from benchmarks.result import *; \
	    stamp(Path('benchmarks/results/reliability.json'), ['openvino'])"

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

# Registers, memory and occupancy of the kernel for every architecture: plugins/BUDGET.md; needs g++ and nvcc.
plugin-budget: .venv/dev
	$(BIN)/python tests/plugins/budget.py

# The pooling on a GPU: kernel, PyTorch, TensorRT with and without the plugin; needs a GPU and nvcc.
plugin-benchmark: .venv/dev
	PYTHONPATH=. $(BIN)/python tests/plugins/gpu_benchmark.py

# What becomes of hostile files, of runs to which something happens, of mutated files, and of memory in a long run: each
# writes its page in docs/, in 1, 15, 10 and 5 minutes. A sample of each is part of `make test`.
hostile: .venv/dev
	$(BIN)/python tests/studies/hostile.py docs/hostile-inputs.md

faults: .venv/dev
	$(BIN)/python tests/studies/faults.py

fuzz: .venv/dev
	$(BIN)/python tests/studies/fuzz.py

soak: .venv/dev
	$(BIN)/python tests/studies/soak.py

# How often the checks for a frontal chest X-ray doubt a real one; wants CXR14_DIR, see below.
false-alarms: .venv/dev
	$(BIN)/python tests/studies/false_alarms.py $(CXR14_DIR)

# Plants bugs in the CUDA kernel and says which tests see them; needs g++ and nvcc.
plugin-mutants: .venv/dev
	$(BIN)/python tests/plugins/mutants.py

# The shipped model from data to model card, or on from where it was stopped: three to four hours on two processors.
# CXR14_DIR is a folder with images/ and labels.csv (image, patient_id, split, view_position, sex, age, the findings).
CXR14_DIR ?= ../shared/cxr14
TRAINED := build/train-demo
DATA = --labels $(CXR14_DIR)/labels.csv --images $(CXR14_DIR)/images
STRETCHES := $(foreach n,1 2 3,$(TRAINED)/$n/last.safetensors)
train-demo: .venv/dev
	$(BIN)/python -m train demo-1 $(DATA) --out $(TRAINED)/1
	$(BIN)/python -m train demo-2 $(DATA) --out $(TRAINED)/2 --start $(TRAINED)/1/last.safetensors
	$(BIN)/python -m train demo-3 $(DATA) --out $(TRAINED)/3 --start $(TRAINED)/2/last.safetensors
	$(BIN)/python -m train.publish $(TRAINED)/3/last.safetensors cxr_trt/models/demo.onnx
	$(BIN)/python -m train.split test $(DATA) --out $(TRAINED)/test
	$(BIN)/cxr-trt build-engine cxr_trt/models/demo.onnx --output $(TRAINED)/demo.cxr --overwrite
	$(BIN)/cxr-trt score $(TRAINED)/test/images --engine $(TRAINED)/demo.cxr --output $(TRAINED)/scores.csv --overwrite
	$(BIN)/cxr-trt evaluate $(TRAINED)/scores.csv $(TRAINED)/test/labels.csv --json cxr_trt/models/evaluation.json --overwrite
	$(BIN)/python -m train.card cxr_trt/models/evaluation.json $(STRETCHES) > cxr_trt/models/MODEL_CARD.md

# One of the published AUCs, from NIH's files to the number; days on a GPU.
# make reproduce RECIPE=paper NIH=folder IMAGENET=densenet121-a639ec97.pth
RECIPE ?= paper
RUN = build/$(RECIPE)
NIH_DATA = --labels $(NIH)/Data_Entry_2017_v2020.csv --images $(NIH)
reproduce: .venv/dev
	$(BIN)/python -m train $(RECIPE) $(NIH_DATA) --imagenet $(IMAGENET) --out $(RUN)
	$(BIN)/python -m train.split test $(NIH_DATA) --out $(RUN)/test
	$(BIN)/cxr-trt build-engine $(RUN)/best.safetensors --output $(RUN)/$(RECIPE).cxr --overwrite
	$(BIN)/cxr-trt score $(RUN)/test/images --engine $(RUN)/$(RECIPE).cxr --output $(RUN)/scores.parquet --overwrite
	$(BIN)/cxr-trt evaluate $(RUN)/scores.parquet $(RUN)/test/labels.csv --json $(RUN)/auc.json --overwrite

clean:
	rm -rf build dist cxr_trt/engine/libcxr_trt_plugin.so
