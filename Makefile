# Every target makes the environment it needs; nothing has to be installed first but Python 3.11 or later.
PYTHON ?= python3
DATA ?= ../shared/data
DEV := .venv/bin
DEMO := .venv-demo/bin

.PHONY: demo test check bench builtin clean

demo: .venv-demo/installed ## train on real images without PyTorch
	$(DEMO)/python examples/digits.py demo/digits
	$(DEMO)/headstart check demo/digits
	rm -rf demo/run && $(DEMO)/headstart fit demo/digits --out demo/run
	$(DEMO)/headstart predict demo/run demo/digits/3/0003.png demo/digits/7/0007.png

test: .venv/installed ## the whole test suite
	$(DEV)/python -m pytest -n 2 --dist loadfile

check: .venv/installed ## lint, types, floors
	$(DEV)/ruff check .
	$(DEV)/ruff format --check .
	$(DEV)/mypy
	$(DEV)/lint-imports

bench: .venv/installed ## the long measurements, by hand and in a quiet moment; docs/benchmarks.md records them
	$(DEV)/python benchmarks/floor.py $(DATA)/flowers --size 128
	$(DEV)/python benchmarks/growing.py
	$(DEV)/python benchmarks/million.py
	$(DEV)/python benchmarks/depth.py $(DATA)/flowers
	$(DEV)/python benchmarks/fit_vs_keras.py --data $(DATA)
	$(DEV)/python benchmarks/keras_fit.py

builtin: .venv/installed ## train the built-in backbones: make builtin DATA=folder
	$(DEV)/python recipes/builtin/train.py builtin --data $(DATA)
	$(DEV)/python recipes/builtin/export.py recipes/builtin/work/builtin/best.safetensors builtin src/headstart/backbones/weights

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(DEV)/python -m pip install --quiet --editable '.[dev]'
	touch $@

.venv-demo/installed: pyproject.toml
	$(PYTHON) -m venv .venv-demo
	$(DEMO)/python -m pip install --quiet --editable '.[demo]'
	touch $@

clean:
	rm -rf .venv .venv-demo demo runs
