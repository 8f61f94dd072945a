PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test check lock clean

# Train the standard head on procedural radiographs, then say where everything is.
demo: $(INSTALLED)
	$(BIN)/python -m core.data.phantom demo/data --images 3000
	$(BIN)/python methods/standard_head/train.py --preset small --no-pretrained \
	  --train_csv demo/data/train.csv --train_dir demo/data/images --folds 5 --run_folds 1 \
	  --epochs 5 --backbone_lr 1e-3 --out_dir demo/run

# Everything: unit tests, whole runs on small data, real radiographs where they are at hand.
test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadgroup

# Lint, format and types on the whole tree.
check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Resolve the newest versions that pyproject.toml admits and keep them in constraints.txt.
lock:
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install -q -e ".[dev,tensorboard]"
	.venv-lock/bin/pip freeze --exclude-editable > constraints.txt
	rm -rf .venv-lock

clean:
	rm -rf .venv .venv-lock build demo outputs *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@
