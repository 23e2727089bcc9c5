# Two commands: `make demo` exports a real model to all three formats, `make test` checks everything.
# Both set up .venv by themselves; that takes minutes the first time and nothing after.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --no-deps --no-compile
READY := $(VENV)/.ready
# Where torch's CPU build for Linux is found, when the package index that pip is set up with does not have it.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
DEMO := build/demo
# CI runs the long matrices too, and what needs emulated boards, a phone's double and a browser.
TESTS := $(if $(CI),,-m "not slow and not device and not browser")
PAGE := benchmarks/devices/browser/page
# Test processes at once, each with one thread, for two cores: a test often waits for a process or for an event.
JOBS ?= 3

# Where `make wheel` puts it.
WHEELS ?= dist

# How long `make fuzz` gives each reader of files of others.
SECONDS ?= 300
READERS_OF_FILES := manifest golden update pack preprocessor pt2 recipe results

.PHONY: demo test matrix mutations kills coverage fuzz setup lint lock docs reprint clean page wheel rigs apk \
	android-models

demo: $(READY)
	$(BIN)/pocketship export minilm --target all --output $(DEMO)/minilm --force
	$(BIN)/pocketship export minilm --target coreml --coreml-precision float16 --output $(DEMO)/minilm-fp16 --force
	$(BIN)/pocketship verify $(DEMO)/minilm

# What comes before the tests waits for the network or is busy with one core each: several at once, in CI the set-up too.
test: $(if $(CI),,$(READY))
	$(MAKE) --no-print-directory --jobs=$(if $(CI),3,2) --output-sync=target lint $(if $(CI),rigs page apk)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(COVERAGE) $(TESTS) $(if $(CI),|| $(BIN)/python -m tests.again $$?)

# All of the long matrices of which `make test` takes a sample.
matrix: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m matrix --whole

# A bundle changed in 10,000 ways, one at a time: what verify refuses, and what it accepts though it is wrong.
mutations: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.mutations

# Exports, replacements of a bundle and updates killed 200 times and more: the bundle is the old one or the new one, and
# the next run leaves nothing behind.
kills: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -s --whole -k kill tests/faults/test_interruptions.py tests/delivery tests/runtimes

# The same tests, and which lines they run; the converters take most of twice as long under it.
coverage: $(READY)
	$(BIN)/coverage erase
	$(MAKE) test COVERAGE="--cov --cov-report=term"

# Fuzzers of all that reads files of others; guided by coverage where atheris is installed (pip install atheris).
fuzz: $(READY)
	for reader in $(READERS_OF_FILES); do $(BIN)/python tests/fuzz/readers.py $$reader --seconds $(SECONDS) || exit 1; done

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
	@awk '!/^(torch==|#)/ && NR % 2' requirements.lock > $(VENV)/odd.lock
	@awk '!/^(torch==|#)/ && NR % 2 == 0' requirements.lock > $(VENV)/even.lock
	@# Three at once: each waits for the network, then unpacks with one core.
	@{ $(INSTALL) -r $(VENV)/odd.lock & odd=$$!; $(INSTALL) -r $(VENV)/even.lock & even=$$!; \
		$(INSTALL) -r $(VENV)/torch.lock || $(INSTALL) -r $(VENV)/torch.lock --index-url $(TORCH_CPU_INDEX); torch=$$?; \
		wait $$odd && wait $$even && test $$torch = 0 \
		&& $(PIP) install --no-deps --no-build-isolation --editable . && $(PIP) check; } > $(VENV)/setup.log 2>&1 \
		|| { grep -i -A 3 '^error' $(VENV)/setup.log >&2 || tail -n 15 $(VENV)/setup.log >&2; exit 1; }
	@# torchvision's wheels are of CUDA: beside torch's CPU build none of its operators can be loaded, which it minds with one.
	@$(BIN)/python -c 'import torchvision' 2>> $(VENV)/setup.log || sed -i.orig \
		's/^@torch.library.register_fake("torchvision::\(.*\)")$$/@register_meta("\1")/' \
		$(VENV)/lib/python*/site-packages/torchvision/_meta_registrations.py
	@$(BIN)/python -m compileall -q -j 0 -x '/tests?/' $(VENV)/lib >> $(VENV)/setup.log 2>&1 || true  # on all cores; pip takes one
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
		grep -v -E '^(nvidia-|cuda-|triton==|torch==|mypy==1)' build/resolved.lock \
		| sed -E "s/ ; python_full_version < '3.15'$$//"; \
		sed -n '/^torch==/p' requirements.lock; } > build/requirements.lock
	mv build/requirements.lock requirements.lock

# The tables of settings in docs/recipes.md, from what the passes declare, then the site in build/site; a link that leads
# nowhere is an error. (Material for MkDocs: its successor Zensical has no hooks yet, and since 0.1 it needs a
# package, zensical-ui, that the index in use lacks.)
docs: $(READY)
	$(BIN)/python -m exporter.compression.recipe_docs docs/recipes.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --config-file docs/site/mkdocs.yml

# What the commands in the README and in docs/ print, anew where it is no longer right: after `make rigs page`, as root.
reprint: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.docs.printed --write README.md $(wildcard docs/*.md)

# The page of `bench --on browser`, bundled with what it needs from npm.
page: $(PAGE)/dist/index.html

$(PAGE)/dist/index.html: $(addprefix $(PAGE)/,package.json package-lock.json tsconfig.json build.mjs index.html style.css) $(wildcard $(PAGE)/src/*)
	cd $(PAGE) && npm ci --no-audit --no-fund && npm run build

# dist/pocketship-*.whl, with the page of `bench --on browser` in it. What an earlier build left would go in, too.
wheel: $(READY) page
	rm -rf build/lib build/bdist.*
	$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir $(WHEELS) .

# The Android demo: built, its plain logic tested on the JVM, signed and verified, from Debian's packages; not run here.
apk: $(READY) $(if $(CI),rigs)
	android_demo/build.sh

# Only what Android Studio needs before it opens android_demo: the models and the code that is generated for them.
android-models: $(READY)
	android_demo/build.sh models

# Emulated boards, a phone's double and Chromium, from Debian's packages, as root: for the tests marked device or browser.
rigs:
	tests/rigs/install.sh

clean:
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache .coverage .coverage.*
