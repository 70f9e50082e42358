# Everything from a fresh clone: `make rollout` (the main job) or `make test`.
# Both call `make setup`, which installs into .venv and builds csrc; again is quick.

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps

# The first interpreter with a version that the package supports.
FITS := -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p $(FITS) 2>/dev/null && echo $$p && break; done)

# A CPU build of PyTorch: a wheel that pip finds locally, else from this index.
# For a CUDA build: make setup TORCH_INDEX=https://download.pytorch.org/whl/cu130
TORCH := torch==2.13.0
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# What the command line names is wanted, not what lies on the disk.
FROM_DISK := $(if $(filter file,$(origin TORCH_INDEX)),yes)
BUILD_TOOLS := scikit-build-core cmake ninja swig openmm

# The toolkit is often installed beside the PATH. Name another: make setup NVCC=/path/to/nvcc;
# what was named last is kept, so that `make test` afterwards builds nothing anew.
NVCC ?= $(firstword $(wildcard $(shell cat $(STAMPS)/nvcc 2>/dev/null)) $(shell command -v nvcc 2>/dev/null) \
	$(wildcard $(CUDA_HOME)/bin/nvcc /usr/local/cuda/bin/nvcc))
export CUDACXX ?= $(NVCC)
# Linked against where nvcc is; what it needs itself, gigabytes, only where there is a GPU.
OPENMM_CUDA = openmm-cuda-$(shell $(NVCC) --version | sed -n 's/.*release \([0-9]*\).*/\1/p')==8.6.1

PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
CPP := $(shell git ls-files 'csrc/*.cpp' 'csrc/*.h' 'csrc/*.cu' 'csrc/*.cuh' 2>/dev/null)
BUILD_INPUTS := CMakeLists.txt pyproject.toml $(shell find csrc -type f 2>/dev/null)

# The references of the eight molecules of MD17, hotter frames, so that what is rare at 500 K has
# been seen in training, and bursts with hot bonds; JOBS=2 makes two at a time. What is there
# already is left as it is.
MOLECULES := ethanol malonaldehyde benzene uracil toluene salicylic naphthalene aspirin
REFERENCES := $(foreach m,$(MOLECULES),$(foreach t,500 1000 1500,data/md17/$(m)_$(t)K/bursts.h5) \
	data/bonds/$(m)/bursts.h5)
JOBS ?= 1

.PHONY: setup rollout test lint ctest pytest sanitize gpu sanitize-gpu clean references FORCE
.DELETE_ON_ERROR:

setup: $(STAMPS)/build

$(STAMPS)/venv:
	@test -n "$(PYTHON)" && $(PYTHON) $(FITS) 2>/dev/null || { echo "setup: found no Python >= 3.11, < 3.14;" \
		"install one, or name it: make setup PYTHON=/path/to/python3.12"; exit 1; }
	@command -v c++ >/dev/null || { echo "setup: found no C++ compiler (c++);" \
		"install one, on Debian: apt-get install g++"; exit 1; }
	@echo "== setup: $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/dependencies: $(STAMPS)/venv constraints.txt
	@echo "== setup: $(TORCH)"
	@{ test -n "$(FROM_DISK)" && $(PIP) install --no-index --no-deps "$(TORCH)" 2>/dev/null; } \
		|| $(PIP) install --index-url $(TORCH_INDEX) --no-deps "$(TORCH)" \
		|| { echo "setup: could not install $(TORCH) from $(TORCH_INDEX); name an" \
			"index that has it: make setup TORCH_INDEX=URL"; exit 1; }
	@echo "== setup: what torch needs, and build tools"
	@$(PIP) install -c constraints.txt "$(TORCH)" $(BUILD_TOOLS)
	@touch $@

# Written when another nvcc is to be used than last time, or the first. CMake keeps the compiler
# that it found, or that it found none, until it forgets all.
$(STAMPS)/nvcc: FORCE | $(STAMPS)/venv
	@echo "$(NVCC)" | cmp -s - $@ || { rm -rf build/CMakeCache.txt build/CMakeFiles; echo "$(NVCC)" >$@; }

$(STAMPS)/build: $(STAMPS)/dependencies $(STAMPS)/nvcc $(BUILD_INPUTS)
	@if test -n "$(NVCC)"; then \
		echo "== setup: $(OPENMM_CUDA), nvcc is $(NVCC)"; \
		$(PIP) install -c constraints.txt "$(OPENMM_CUDA)" \
			$$(command -v nvidia-smi >/dev/null || echo --no-deps); \
	elif command -v nvidia-smi >/dev/null; then \
		echo "setup: found a GPU but no nvcc: all will run on the CPU; install the CUDA" \
			"toolkit 13, or name its compiler: make setup NVCC=/path/to/nvcc"; fi
	@if command -v nvidia-smi >/dev/null && ! $(BIN)/python -c \
			'import sys, torch; sys.exit(not torch.version.cuda)'; then \
		echo "setup: found a GPU but a CPU build of torch: all will run on the CPU; for the GPU" \
			"make clean, then make setup TORCH_INDEX=https://download.pytorch.org/whl/cu130"; fi
	@echo "== setup: openmm_diffmd, its dependencies and csrc (minutes the first time)"
	@$(PIP) install -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

rollout: setup
	$(BIN)/python benchmarks/md17_rollout.py

references: setup
	@$(MAKE) --no-print-directory -j $(JOBS) $(REFERENCES)

data/md17/%_500K/bursts.h5:
	OMP_NUM_THREADS=1 $(BIN)/openmm-diffmd reference --config reference_md17 --molecule $* --output $(@D)

data/md17/%_1000K/bursts.h5:
	OMP_NUM_THREADS=1 $(BIN)/openmm-diffmd reference --config reference_md17 --temperature_K 1000 --length_ps 50 --seed 41 \
		--molecule $* --output $(@D)

data/md17/%_1500K/bursts.h5:
	OMP_NUM_THREADS=1 $(BIN)/openmm-diffmd reference --config reference_md17 --temperature_K 1500 --length_ps 10 --seed 42 \
		--molecule $* --output $(@D)

data/bonds/%/bursts.h5:
	OMP_NUM_THREADS=1 $(BIN)/openmm-diffmd reference --config reference_hot_bonds --molecule $* --output $(@D)

# One step after the other: the first that fails is named last.
test: setup
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory ctest
	@$(MAKE) --no-print-directory pytest

lint: setup
	@echo "== ruff check"
	@$(BIN)/ruff check .
	@echo "== ruff format --check"
	@$(BIN)/ruff format --check .
	@echo "== mypy"
	@$(BIN)/mypy
	@echo "== clang-format"
	@test -z "$(CPP)" || $(BIN)/clang-format --dry-run -Werror $(CPP)

ctest: setup
	@echo "== ctest"
	@$(BIN)/ctest --test-dir build --output-on-failure --no-tests=error

# A file's tests share fixtures that take seconds, so they stay in one process.
TEST_PROCESSES ?= 2
pytest: setup
	@echo "== pytest"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile tests

# All tests that need a GPU: the contract in three precisions, and operators on the device.
gpu: setup
	@$(BIN)/python -c 'import sys, torch, openmm, openmm_diffmd.integrator; \
		platforms = map(openmm.Platform.getPlatform, range(openmm.Platform.getNumPlatforms())); \
		kernels = {p.getName(): p.supportsKernels(["IntegrateDiffusionStep"]) for p in platforms}; \
		sys.exit(None if torch.cuda.is_available() and kernels.get("CUDA") else \
		f"gpu: found torch {torch.__version__} and platforms {kernels} (True: with kernels of ours), " \
		"expected a CUDA build of torch, and CUDA: True (without CUDA among them " \
		"openmm.Platform.getPluginLoadFailures() says why; False: it was built without nvcc)")'
	@echo "== gpu: ctest"
	@DIFFMD_REQUIRE_DEVICE=1 DIFFMD_GRAPHS=required $(BIN)/ctest --test-dir build --output-on-failure --no-tests=error \
		-R '^cuda_(single|mixed|double)$$'
	@echo "== gpu: pytest"
	@$(BIN)/python -m pytest tests -m gpu

# Every kernel under compute-sanitizer, which comes with the toolkit (minutes). Some containers may
# use a GPU, but not look into it as it has to.
SANITIZER ?= $(firstword $(shell command -v compute-sanitizer 2>/dev/null) \
	$(wildcard $(dir $(realpath $(NVCC)))compute-sanitizer /usr/local/cuda/bin/compute-sanitizer) compute-sanitizer)
sanitize-gpu: setup
	@command -v $(SANITIZER) >/dev/null || { echo "sanitize-gpu: found no $(SANITIZER);" \
		"name it: make sanitize-gpu SANITIZER=/path/to/compute-sanitizer"; exit 1; }
	@for tool in "memcheck --report-api-errors no" racecheck; do echo "== sanitize-gpu: $$tool"; \
		PYTORCH_NO_CUDA_MEMORY_CACHING=1 $(SANITIZER) --tool $$tool --kernel-name kernel_substring=run_kernel \
			--error-exitcode 1 $(BIN)/python -m pytest -q tests/ops/test_gpu.py -k "not graph" || exit 1; done

# The C++ tests under AddressSanitizer, with leaks, and UBSan at once; build/ stays as it is. Stacks
# are unwound in full, so that what OpenMM and PoCL lose can be told from ours.
sanitize: setup
	@echo "== sanitize"
	@$(BIN)/cmake -G Ninja -S . -B build/sanitize -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python \
		-DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE=-O1 \
		-DDIFFMD_ENABLE_CUDA=OFF -DDIFFMD_SANITIZE=address,undefined >/dev/null
	@$(BIN)/cmake --build build/sanitize --target cpp_tests
	@DIFFMD_CPU_KERNELS=avx2 ASAN_OPTIONS=fast_unwind_on_malloc=0 LSAN_OPTIONS=suppressions=$(CURDIR)/csrc/tests/leaks.supp:print_suppressions=0 $(BIN)/ctest \
		--test-dir build/sanitize --output-on-failure --no-tests=error

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache
