PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test test-browser test-families test-gpu soak check docs lock clean

# Train the three methods on procedural radiographs, merge them, and score all on other patients.
demo: $(INSTALLED)
	$(BIN)/python -m benchmarks.demo

# All tests: unit tests, whole runs on small data, real radiographs if available.
test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Reports and the page in a real browser: the installed Chromium, or a downloaded one.
test-browser: $(INSTALLED)
	$(BIN)/python -m pytest -m browser tests/browser

# A small network of each family of timm, trained, saved and loaded by each method; sizes.
test-families: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 -m families tests/methods/test_families.py \
	  tests/methods/test_sizes.py

# Branches that only CUDA reaches; skipped, with the reason, without a GPU.
test-gpu: $(INSTALLED)
	$(BIN)/python -m pytest -m gpu -rs tests/gpu

# Long form of the tests of faults and hostile files; writes its table to docs/reliability.md.
soak: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/faults tests/fuzz \
	  tests/core/data/splits/test_duplicates.py tests/core/runtime/test_environment.py tests/test_launchers.py \
	  tests/test_bad_input.py --soak --timeout 1800 --table docs/reliability.md

# Lint, format and types of the whole tree, and compatibility of packages.
check: $(INSTALLED)
	$(BIN)/pip check --disable-pip-version-check
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

# The page of the Python API, docs/api.md, from the docstrings.
docs: $(INSTALLED)
	$(BIN)/python docs/make_api.py

# Resolve the newest versions that pyproject.toml allows and write them to constraints.txt.
lock:
	$(PYTHON) -m venv --clear .venv-lock && .venv-lock/bin/pip install -q -e ".[dev,peers]"
	.venv-lock/bin/pip freeze --exclude-editable > constraints.txt && rm -rf .venv-lock

clean:
	rm -rf .venv .venv-lock build demo outputs *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@
