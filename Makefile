# Every target makes the environment it needs; nothing has to be installed first but Python 3.11 or later.
PYTHON ?= python3
DATA ?= ../shared/data
DEV := .venv/bin
DEMO := .venv-demo/bin
TFLITE := .venv-tflite/bin
FLOORS := torch export report serve web parquet
DIST ?= dist
FUZZ_SECONDS ?= 60

.PHONY: demo test test-floors test-keras-backends check bench docs builtin build reproducible lock audit fuzz clean

demo: .venv-demo/installed ## train on real images without PyTorch
	$(DEMO)/python examples/digits.py demo/digits
	$(DEMO)/headstart check demo/digits
	rm -rf demo/run && $(DEMO)/headstart fit demo/digits --out demo/run
	$(DEMO)/headstart predict demo/run demo/digits/3/0003.png demo/digits/7/0007.png

test: .venv/installed .venv-tflite/installed ## the whole test suite
	.ci/chromium $(DEV)/python
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 HEADSTART_TFLITE_PYTHON=$(CURDIR)/$(TFLITE)/python \
		$(DEV)/python -m pytest -n 2 --dist worksteal

test-keras-backends: .venv/installed ## the tests of Keras on every backend of Keras that is installed
	for backend in tensorflow torch jax; do $(DEV)/python -c "import $$backend" 2>/dev/null \
		|| { echo "$$backend is not installed: skipped"; continue; }; \
		KERAS_BACKEND=$$backend $(DEV)/python -m pytest tests/test_keras*.py || exit 1; done

test-floors: .venv/installed ## a fit, its check and its exports with the oldest versions that pyproject.toml allows
	test -d .venv-floors || $(DEV)/uv venv --quiet --python $(DEV)/python .venv-floors
	$(DEV)/uv pip compile pyproject.toml locks/build.in $(addprefix --extra ,$(FLOORS)) \
		--resolution lowest-direct --quiet --output-file .venv-floors/floors.txt
	$(DEV)/uv pip sync --quiet --python .venv-floors/bin/python .venv-floors/floors.txt
	PYTHONPATH=src .venv-floors/bin/python .ci/smoke.py

check: .venv/installed ## lint, types, layers
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
	$(DEV)/python benchmarks/learners.py
	$(DEV)/python benchmarks/retrain.py $(DATA)/flowers
	$(DEV)/python benchmarks/cluster.py $(DATA)/tiny-imagenet-64.zip

docs: .venv/installed ## the documentation site, offline, into docs/_build/html
	$(DEV)/python -m sphinx -M html docs docs/_build -W --keep-going -q

builtin: .venv/installed ## train the built-in backbones, on an accelerator if there is one: make builtin DATA=folder
	$(DEV)/python recipes/builtin/accelerated.py --data $(DATA)
	for name in builtin builtin-large; do \
		$(DEV)/python recipes/builtin/export.py recipes/builtin/work/$$name-best.safetensors $$name \
			src/headstart/backbones/weights || exit 1; done

build: .venv/installed ## the wheel into dist/; the same commit gives the same bytes
	rm -rf $(DIST)
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(DEV)/python -m pip wheel --quiet --no-deps \
		--no-build-isolation --wheel-dir $(DIST) .

reproducible: ## build twice and compare
	$(MAKE) --no-print-directory build DIST=dist/first
	$(MAKE) --no-print-directory build DIST=dist/second
	cmp dist/first/*.whl dist/second/*.whl && echo "the two wheels are the same bytes"

lock: ## pin everything again, with hashes; then commit locks/
	for extra in demo dev serve tflite; do .venv/bin/uv pip compile pyproject.toml locks/build.in \
		$$(ls locks/$$extra.in 2>/dev/null) --extra $$extra --upgrade \
		--universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url \
		--no-emit-find-links --quiet --output-file locks/$$extra.txt || exit 1; done

audit: .venv/installed ## known vulnerabilities of what is pinned; says so where nobody can be asked
	$(DEV)/python locks/audit.py locks/dev.txt

fuzz: .venv/installed ## a minute for each parser of what others may send
	for target in decode archive table pack record cache weights networks front; do $(DEV)/python fuzz/$$target.py $(FUZZ_SECONDS) || exit 1; done
	$(DEV)/python fuzz/vanish.py 10000

# What is installed is pinned with hashes; the package itself is built with the pinned tools alone.
.venv/installed: pyproject.toml locks/dev.txt
	$(PYTHON) -m venv .venv
	$(DEV)/python -m pip install --quiet --require-hashes --requirement locks/dev.txt
	$(DEV)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

.venv-demo/installed: pyproject.toml locks/demo.txt
	$(PYTHON) -m venv .venv-demo
	$(DEMO)/python -m pip install --quiet --require-hashes --requirement locks/demo.txt
	$(DEMO)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# TensorFlow Lite's converter in an environment of its own: it wants other packages than Keras and ONNX do.
.venv-tflite/installed: pyproject.toml locks/tflite.txt
	$(PYTHON) -m venv .venv-tflite
	$(TFLITE)/python -m pip install --quiet --require-hashes --requirement locks/tflite.txt
	touch $@

clean:
	rm -rf .venv .venv-demo .venv-tflite .venv-floors demo dist runs docs/_build docs/reference/packages
