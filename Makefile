# Each target sets up all it needs in .venv from a fresh clone: Python 3.11+, make and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
INSTALLED := $(VENV)/.installed

.PHONY: help demo test test-all gpu-test check format bench species phasing robustness fusions fuzz docs weights likelihood-weights likelihood-dr2 kernels release clean

help:
	@echo "make demo    install, then prepare, impute and evaluate a real example"
	@echo "make test    install, then run the tests but the slow ones"
	@echo "make test-all  the slow tests as well"
	@echo "make gpu-test  install, then run the tests that need a CUDA device"
	@echo "make check   ruff, mypy and the test of import layers"
	@echo "make format  format the code"
	@echo "make bench   ragimpute beside Beagle and Minimac4: DATA=\"folder ...\" BEAGLE_NE=\"1000 or folder=1000 ...\" OUT=bench-output"
	@echo "make species  the same on simulated organisms and on DATA=\"folder ...\", no times; writes its tables into docs/species.md"
	@echo "make phasing errors of phase, beside Beagle, SHAPEIT4 and Eagle: DATA=folder OUT=phasing-output"
	@echo "make robustness  small panels, few sites, missing genotypes: DATA=folder OUT=robustness-output"
	@echo "make fusions train every fusion in three small forms: DATA=folder, writes docs/fusions.md"
	@echo "make fuzz    10,000 mutated inputs through every command: N=10000 SEED=1, writes docs/reliability.md"
	@echo "make kernels  list the compiled kernels that ship: those that tests and runs have called"
	@echo "make docs    write docs/cli.md from the commands"
	@echo "make release  number, changelog section and citation of a release: VERSION=0.2.0 [URL=repository]"
	@echo "make weights train the weights that ship: DATA=\"folder ...\" HOLD_OUT=all|each"
	@echo "make likelihood-weights  train those for genotype likelihoods: PANELS=\"panel.h5 ...\""
	@echo "make likelihood-dr2  calibrate the DR2 of genotype likelihoods, after it: PANELS=..."

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11+ is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch hatchling editables
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation -e '.[dev]'
	touch $@

# Kernels are compiled side by side, once; after a change of code those that it touches. So is Python's
# own code: where PYTHONDONTWRITEBYTECODE is set, each run would compile all modules anew, in .2 s.
$(READY): $(INSTALLED) $(shell find ragimpute -name '*.py' -o -name signatures.json)
	$(BIN)/python -m ragimpute.kernels.build
	$(BIN)/python -m compileall -q ragimpute
	touch $@

kernels: $(INSTALLED)
	$(BIN)/python -m ragimpute.kernels.build --record ragimpute/compiled
	$(BIN)/python -m ragimpute.kernels.build

demo: $(READY)
	$(BIN)/ragimpute demo -o demo-output --force

test: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

test-all: test
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m 'slow and not gpu'

gpu-test: $(READY)
	$(BIN)/python -m pytest -q -m gpu -rs

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python benchmarks/compare.py $(if $(DATA),$(DATA),--example) -o $(or $(OUT),bench-output) $(BEAGLE_NE:%=--beagle-ne %)

# Makes the organisms that are not there yet.
species: $(READY)
	$(BIN)/python benchmarks/species_page.py $(DATA) -o $(or $(OUT),species-output) $(BEAGLE_NE:%=--beagle-ne %) --markdown docs/species.md

phasing: $(READY)
	$(BIN)/python benchmarks/phasing.py $(or $(DATA),--example) -o $(or $(OUT),phasing-output)

fusions: $(READY)
	$(BIN)/python benchmarks/fusions.py $(or $(DATA),--example) -o $(or $(OUT),fusions-output) --markdown docs/fusions.md

robustness: $(READY)
	$(BIN)/python benchmarks/robustness.py $(or $(DATA),--example) -o $(or $(OUT),robustness-output)

fuzz: $(READY)
	$(BIN)/python tests/run_fuzz.py --number $(or $(N),10000) --seed $(or $(SEED),1) --write

docs: $(READY)
	$(BIN)/python packaging/make_cli_docs.py docs/cli.md

weights: $(READY)
	$(BIN)/python packaging/make_weights.py $(DATA) $(if $(HOLD_OUT),--hold-out $(HOLD_OUT))

likelihood-weights: $(READY)
	$(BIN)/python packaging/make_likelihood_weights.py $(PANELS) --processes 2

likelihood-dr2: $(READY)
	$(BIN)/python packaging/calibrate_likelihoods.py $(PANELS) --processes 2

release: $(READY)
	$(BIN)/python packaging/release.py prepare $(VERSION) $(if $(URL),--url $(URL))

clean:
	rm -rf $(VENV) demo-output bench-output species-output phasing-output fusions-output weights-work
