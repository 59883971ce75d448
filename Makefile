# Everything a developer runs. Each target creates what it needs in .venv; a fresh machine needs python3 (with venv), g++,
# make and git only. MOMENTUM_CUDA (AUTO, ON, OFF) and MOMENTUM_CUDA_ARCHS choose the CUDA part, as in CMakeLists.txt.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
JOBS ?= $(shell nproc)
MOMENTUM_CUDA ?= AUTO
MOMENTUM_CUDA_ARCHS ?= 80;90
export MOMENTUM_CUDA MOMENTUM_CUDA_ARCHS

VENV := $(CURDIR)/.venv
BIN := $(VENV)/bin
BUILD := $(CURDIR)/build
export PATH := $(BIN):$(PATH)

# A machine without nvcc gets one from packages, unless CUDA is not wanted.
NVCC := $(or $(CUDACXX),$(shell PATH='$(PATH):/usr/local/cuda/bin' command -v nvcc))
NVCC_GROUP := $(if $(NVCC)$(filter OFF,$(MOMENTUM_CUDA)),,nvcc)
PIP_INSTALL = $(BIN)/python -m pip install --quiet $(addprefix --group ,$(1)) && touch $@

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet pip==26.3
	touch $@

# One stamp per dependency group of pyproject.toml.
$(VENV)/.group-%: $(VENV)/.created pyproject.toml
	$(call PIP_INSTALL,$*)

groups = $(addprefix $(VENV)/.group-,$(1) $(NVCC_GROUP))

# configure-and-build: $(1) more CMake options, $(2) components to copy into the package
define build_into_package
cmake -G Ninja -S . -B $(BUILD) -DPython_EXECUTABLE=$(BIN)/python -DMOMENTUM_CUDA=$(MOMENTUM_CUDA) \
  "-DMOMENTUM_CUDA_ARCHS=$(MOMENTUM_CUDA_ARCHS)" -DMOMENTUM_ARRAY=ON $(1)
cmake --build $(BUILD) --parallel $(JOBS)
rm -f python/momentum/*.so
for component in wheel array $(2); do cmake --install $(BUILD) --prefix python --component $$component; done
echo $(CURDIR)/python > $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/momentum-checkout.pth
endef

.PHONY: setup
setup: $(call groups,build) ## Build the kernels and make `import momentum` work in .venv
	$(call build_into_package,-DMOMENTUM_EMULATED=OFF,)

.PHONY: train
train: setup $(call groups,bench) ## Train a small GPT with torch's AdamW and with ours; ARGS="--help" for options
	$(BIN)/python -m bench.train $(ARGS)

.PHONY: test
test: $(call groups,build test bench) ## Run all tests; ARGS="-k name" to select
	$(call build_into_package,-DMOMENTUM_EMULATED=$(if $(filter OFF,$(MOMENTUM_CUDA)),OFF,ON),tests)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup $(ARGS)

.PHONY: bench
bench: setup $(call groups,bench) ## Time the kernels against their peers; ARGS="--help" for options
	$(BIN)/python -m bench $(ARGS)

.PHONY: wheel
wheel: $(call groups,build wheel) ## Build the release wheel and source distribution in dist/
	rm -rf dist
	MOMENTUM_CUDA=ON MOMENTUM_CUDA_ARCHS="80;86;89;90;100;120" \
	  $(BIN)/python -m pip wheel --no-build-isolation --no-deps --wheel-dir build/dist .
	$(BIN)/python -m auditwheel repair --exclude 'libtorch*' --exclude 'libc10*' --wheel-dir dist build/dist/*.whl
	$(BIN)/python setup.py --quiet sdist
	ls -l dist

.PHONY: lint
lint: $(call groups,build test lint) ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	git ls-files '*.h' '*.cpp' '*.cu' '*.cuh' | xargs $(BIN)/clang-format --dry-run -Werror

.PHONY: clean
clean: ## Remove everything built, but not .venv
	rm -rf build dist python/*.egg-info python/momentum/*.so python/momentum/_build_config.json
