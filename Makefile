# demo   bring up a cluster and run the shop on it, each step checked (as root; without root on hollow nodes)
# test   every test; those that need root, kubectl or a kernel feature say so when they are skipped
# fuzz   the tests of hostile input with many more examples, other ones each time; as long as you like to wait
# lint   ruff, its format check, mypy --strict
# simulate  SEEDS=1000000 seeded runs of the control plane in bad weather; SEED=4711 replays one and shows it
# bench  the figures of docs/performance.md, measured on this machine
# clean  remove what these made in the checkout

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin

.PHONY: demo test fuzz lint simulate bench clean machine

demo: machine $(VENV)/.installed
	$(RUN)/python examples/shop/demo.py $(ARGS)

# Tests that touch nothing but themselves share all cores, file by file; then those that use the machine, one by one.
# 5 is pytest's code for "nothing to do", when ARGS chooses tests of one kind only.
test: machine $(VENV)/.installed-dev
	$(RUN)/python -m pytest --durations=10 -m "not machine" --numprocesses=auto --maxprocesses=8 --dist=loadfile $(ARGS) || [ $$? = 5 ]
	$(RUN)/python -m pytest --durations=20 -m machine $(ARGS) || [ $$? = 5 ]

fuzz: $(VENV)/.installed-dev
	$(RUN)/python -m pytest --hypothesis-profile=long --timeout=7200 tests/apiserver/hostile $(ARGS)

lint: $(VENV)/.installed-dev
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

SEEDS ?= 100000
simulate: $(VENV)/.installed-dev
	PYTHONHASHSEED=0 $(RUN)/python -m tests.simulate $(if $(SEED),--seed $(SEED),--seeds $(SEEDS)) $(ARGS)

bench: machine $(VENV)/.installed
	$(RUN)/python -m bench $(ARGS)

machine:
	@.ci/machine

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find knarr tests bench examples -name __pycache__ -type d -exec rm -rf {} +

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("knarr needs Python 3.11 or newer, and $(PYTHON) is %d.%d; another one: make PYTHON=python3.12" % sys.version_info[:2])'
	test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN)/pip install --quiet --disable-pip-version-check --editable '.[demo]'
	$(RUN)/python -m compileall -q knarr
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(RUN)/pip install --quiet --disable-pip-version-check --editable '.[demo,dev]'
	touch $@
