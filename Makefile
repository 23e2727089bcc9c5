# Two commands: `make demo` exports a real model to all three formats, `make test` checks everything.
# Both set up .venv by themselves; that takes minutes the first time and nothing after.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
READY := $(VENV)/.ready
# Where torch's CPU build for Linux is found, when the package index that pip is set up with does not have it.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
DEMO := build/demo
# CI runs the long matrices too, and what needs emulated boards, a phone's double and a browser.
TESTS := $(if $(CI),,-m "not slow and not device and not browser")
PAGE := benchmarks/devices/browser/page
# Test processes at once, each with one thread: most tests wait for a converter on one core.
JOBS ?= 2

.PHONY: demo test matrix coverage setup lint lock docs clean page rigs apk android-models

demo: $(READY)
	$(BIN)/pocketship export minilm --target all --output $(DEMO)/minilm --force
	$(BIN)/pocketship export minilm --target coreml --coreml-precision float16 --output $(DEMO)/minilm-fp16 --force
	$(BIN)/pocketship verify $(DEMO)/minilm

test: lint $(if $(CI),rigs page apk)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(COVERAGE) $(TESTS)

# All of the long matrices of which `make test` takes a sample.
matrix: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m matrix --whole

# The same tests, and which lines they run; the converters take most of twice as long under it.
coverage: $(READY)
	$(BIN)/coverage erase
	$(MAKE) test COVERAGE="--cov --cov-report=term"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "pocketship needs Python 3.11 to 3.13; run make with PYTHON=python3.11" >&2; exit 1; }
	@echo "Setting up $(VENV): about 1 GB to download, 2.5 GB on disk; the log is $(VENV)/setup.log"
	@$(PYTHON) -m venv $(VENV)
	@grep ^torch== requirements.lock > $(VENV)/torch.lock
	@{ $(PIP) install --no-deps -r $(VENV)/torch.lock \
		|| $(PIP) install --no-deps -r $(VENV)/torch.lock --index-url $(TORCH_CPU_INDEX); } > $(VENV)/setup.log 2>&1 \
		&& $(PIP) install --no-deps -r requirements.lock >> $(VENV)/setup.log 2>&1 \
		&& $(PIP) install --no-deps --no-build-isolation --editable . >> $(VENV)/setup.log 2>&1 \
		&& $(PIP) check >> $(VENV)/setup.log 2>&1 \
		|| { tail -n 15 $(VENV)/setup.log >&2; exit 1; }
	@touch $(READY)

# Pins all extras for every platform and Python at once; CUDA packages are dropped, and torch on Linux is the CPU build.
# (backports-strenum 1.3 is for Python below 3.11, an upper bound that the resolver does not read; the only numba before
# 0.63.1 that a newer numpy admits is a beta.)
lock:
	mkdir -p build
	printf '%s\n' 'backports-strenum<1.3' 'numba>=0.63.1' > build/constraints.txt
	uv pip compile pyproject.toml --constraints build/constraints.txt --all-extras --universal --python-version 3.11 --no-emit-index-url --no-annotate \
		--no-header --quiet --output-file build/resolved.lock
	{ sed -n '/^#/p' requirements.lock; \
		grep -v -E '^(nvidia-|cuda-|triton==|torch==|colorama==|mypy==1)' build/resolved.lock \
		| sed -E "s/ ; python_full_version < '3.15'$$//"; \
		sed -n '/^torch==/p' requirements.lock; } > build/requirements.lock
	mv build/requirements.lock requirements.lock

# The tables of settings in docs/recipes.md, from what the passes declare.
docs: $(READY)
	$(BIN)/python -m exporter.compression.recipe_docs docs/recipes.md

# The page of `bench --on browser`, bundled with what it needs from npm.
page: $(PAGE)/dist/index.html

$(PAGE)/dist/index.html: $(addprefix $(PAGE)/,package.json package-lock.json tsconfig.json build.mjs index.html style.css) $(wildcard $(PAGE)/src/*)
	cd $(PAGE) && npm ci --no-audit --no-fund && npm run build

# The Android demo: built, its plain logic tested on the JVM, signed and verified, from Debian's packages; not run here.
apk: $(READY)
	android_demo/build.sh

# Only what Android Studio needs before it opens android_demo: the models and the code that is generated for them.
android-models: $(READY)
	android_demo/build.sh models

# Emulated boards, a phone's double and Chromium, from Debian's packages, as root: for the tests marked device or browser.
rigs:
	tests/rigs/install.sh

clean:
	rm -rf build .pytest_cache .ruff_cache .mypy_cache .coverage .coverage.*
