PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test test-browser test-families soak check lock clean

DEMO_DATA := --preset small --no-pretrained --img_size 64 --train_csv demo/data/train.csv \
  --train_dir demo/data/images --folds 5 --run_folds 1
DEMO_TEST := --test_csv demo/data/test.csv --image_dir demo/data/images --overwrite

# Train the three methods on procedural radiographs, merge them, and score all on other patients.
demo: $(INSTALLED)
	$(BIN)/python -m core.data.phantom demo/data --images 1600
	$(BIN)/python methods/standard_head/train.py $(DEMO_DATA) --epochs 4 --backbone_lr 1e-3 \
	  --out_dir demo/standard_head
	$(BIN)/python methods/csra_db_cas/train.py $(DEMO_DATA) --epochs 4 --backbone_lr 1e-3 \
	  --out_dir demo/csra_db_cas
	$(BIN)/python methods/label_coupling/train.py $(DEMO_DATA) --epochs 4 --lr 1e-3 \
	  --out_dir demo/label_coupling
	for method in standard_head csra_db_cas label_coupling; do \
	  $(BIN)/python -m ensemble.infer --checkpoints demo/$$method/*_fold1.safetensors \
	    $(DEMO_TEST) --no-use_tta --output demo/$$method.csv || exit; done
	$(BIN)/python -m ensemble.infer --checkpoints demo/*/*_fold1.safetensors \
	  $(DEMO_TEST) --use_tta --tta_config flip_scale --output demo/merged.csv
	$(BIN)/python -m ensemble.evaluate --predictions demo/merged.csv demo/standard_head.csv \
	  demo/csra_db_cas.csv demo/label_coupling.csv --labels demo/data/test_labels.csv \
	  --train_csv demo/data/train.csv --output demo/scores

# Everything: unit tests, whole runs on small data, real radiographs where they are at hand.
test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Reports and the page in a real browser: this machine's Chromium, or one that is fetched.
test-browser: $(INSTALLED)
	command -v chromium || command -v chromium-browser || command -v google-chrome || \
	  $(BIN)/playwright install --with-deps chromium || \
	  (apt-get update -qq && apt-get install -yqq chromium)
	$(BIN)/python -m pytest -m browser tests/browser

# A small network of each family of timm, trained, saved and loaded by each method.
test-families: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 -m families tests/methods/test_families.py

# The long form of the tests of faults and hostile files; its table goes to docs/reliability.md.
soak: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/faults tests/fuzz \
	  tests/core/data/splits/test_duplicates.py tests/core/runtime/test_environment.py tests/test_launchers.py \
	  tests/test_bad_input.py --soak --timeout 1800 --table docs/reliability.md

# Lint, format and types on the whole tree, and packages that fit each other.
check: $(INSTALLED)
	$(BIN)/pip check --disable-pip-version-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Resolve the newest versions that pyproject.toml admits and keep them in constraints.txt.
lock:
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install -q -e ".[dev]"
	.venv-lock/bin/pip freeze --exclude-editable > constraints.txt
	rm -rf .venv-lock

clean:
	rm -rf .venv .venv-lock build demo outputs *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@
