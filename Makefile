# What each target does is said by `make help`. All of them can be run again at any time, and make
# what they need first.

SHELL := /bin/sh
.DEFAULT_GOAL := help

# The tests run in two environments: with the newest JupyterHub, and with the oldest supported.
VENV := .venv
VENV_HUB5 := .venv-hub5
BIN := $(VENV)/bin

QUICK := not engine and not browser and not network and not slow and not long
# One of these at a time; tests marked `beside` need no more than containers.
ELSEWHERE := not kube and not swarm and not podman and not conformance
ONE_BY_ONE := (engine or browser) and not beside and $(ELSEWHERE)
BESIDE := not ((engine or browser) and not beside) and $(ELSEWHERE)$(if $(OVERLAYSPAWNER_LONG),, and not long)
# How many of the others at a time. What goes on beside them, one test at a time, waits more than it computes.
WORKERS ?= 2
# What depends on the hub's version, and so is run with both.
HUB_TESTS := $(wildcard tests/hub tests/docker/test_walk.py tests/docker/test_safe.py)
HUB_TESTS_WITHOUT := $(addprefix --ignore=tests/hub/test_,payload_zip.py start_bin.py output.py delivery_engine.py)
# The engines that tests/conformance runs on, one after the other.
ENGINES ?= docker,kube,local
CONFORMANCE = OVERLAYSPAWNER_ENGINES=$(ENGINES) $(BIN)/python -m pytest tests/conformance
PYTEST_ARGS ?=
BENCH ?= spawn
WHEEL_ARGS ?=

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

.PHONY: demo
demo: env ## a JupyterHub to try, on 127.0.0.1 (PORT=8000, ENGINE=docker|local, IMAGE=…)
	@exec $(BIN)/python examples/demo/run.py

.PHONY: test
test: ready ## everything: lint, and all tests with JupyterHub 6 and 5
	@mkdir -p .cache; status=0; waiting=.cache/waiting.log; \
	run() { echo "== $$1 =="; shift; "$$@" || status=$$?; }; \
	beside="-n $(WORKERS) --dist worksteal"; hub5="$(HUB_TESTS) $(HUB_TESTS_WITHOUT)"; \
	{ run "what depends on the hub, with JupyterHub 5: several at a time" \
	    $(VENV_HUB5)/bin/python -m pytest $$hub5 $$beside -m "$(BESIDE)" $(PYTEST_ARGS); \
	  run "what depends on the hub, with JupyterHub 5: one by one" \
	    $(VENV_HUB5)/bin/python -m pytest $$hub5 -m "$(ONE_BY_ONE)" $(PYTEST_ARGS); \
	  run "one by one: engine and browser, with the newest JupyterHub" \
	    $(BIN)/python -m pytest -m "$(ONE_BY_ONE)" $(PYTEST_ARGS); \
	  run "the same checks on every engine, and what is of Kubernetes only" \
	    env $(CONFORMANCE) tests/kube -m "conformance or kube" $(PYTEST_ARGS); \
	  exit $$status; } >$$waiting 2>&1 & other=$$!; \
	run "several at a time, with the newest JupyterHub" \
	  $(BIN)/python -m pytest $$beside -m "$(BESIDE)" $(PYTEST_ARGS); \
	wait $$other || status=$$?; cat $$waiting; \
	exit $$status

# What is waited for (downloads, an engine) and what computes go on side by side: minutes on a new machine.
.PHONY: ready
ready: ## all that the tests need
	@$(MAKE) --no-print-directory engine-up proxy helm chromium btrfs compiler & tools=$$!; \
	$(MAKE) --no-print-directory env env-hub5; envs=$$?; wait $$tools && exit $$envs
	@$(MAKE) --no-print-directory images & images=$$!; \
	$(MAKE) --no-print-directory lint labextension labextension-check; checked=$$?; wait $$images && exit $$checked

.PHONY: test-quick
test-quick: env ## the tests without an engine, a browser or the network (under a minute)
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "$(QUICK)" $(PYTEST_ARGS)

.PHONY: test-all
test-all: ## everything on all engines, Kubernetes with JupyterHub 5 too, the long tests, and what is left to chance many times
	@OVERLAYSPAWNER_LONG=1 OVERLAYSPAWNER_KILLS=50 OVERLAYSPAWNER_SEQUENCES=40 \
	  $(MAKE) --no-print-directory test ENGINES=docker,system-user,swarm,podman,kube,local
	@$(BIN)/python -m pytest tests/podman -m podman $(PYTEST_ARGS)
	@$(VENV_HUB5)/bin/python -m pytest tests/kube -m kube $(PYTEST_ARGS)
	@$(MAKE) --no-print-directory test-swarm ENGINE=swarm
	@$(MAKE) --no-print-directory parents SUITES=--if-possible

.PHONY: test-kube
test-kube: env engine-up images proxy helm ## all about Kubernetes: the Helm chart, and on a cluster: KUBECONFIG's, else one that is started
	@$(BIN)/python -m pytest tests/kube tests/helm $(PYTEST_ARGS)

.PHONY: parents
parents: env engine-up images proxy ## the parents' own test suites, with their classes and with ours, compared (SUITES="docker swarm …")
	@$(BIN)/python -m tests.parents.run $(SUITES)

.PHONY: test-swarm
test-swarm: env engine-up images proxy ## what only a swarm can show (ENGINE=swarm makes one)
	@$(BIN)/python -m pytest tests/swarm -m swarm $(PYTEST_ARGS)

.PHONY: screenshots
screenshots: env engine-up images proxy chromium labextension ## renew the pictures of the manual: the tests in the browser take them
	@OVERLAYSPAWNER_SCREENSHOTS=1 $(BIN)/python -m pytest tests/ui $(PYTEST_ARGS)

.PHONY: conformance
conformance: env ## every request of the conformance table by old and new uv and pip; renews the table in the manual
	@$(BIN)/python tests/support/conformance.py $(PYTEST_ARGS)

.PHONY: lint
lint: env ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy overlayspawner

.PHONY: env
env: ## the development environment, .venv
	@scripts/env.sh $(VENV)

.PHONY: env-hub5
env-hub5: ## the second one, with JupyterHub 5
	@scripts/env.sh $(VENV_HUB5) 'jupyterhub>=5,<6'

.PHONY: engine
engine: env engine-up proxy ## what every engine has to do, checked on one (ENGINE=docker|system-user|swarm|podman|kube|local)
	@$(CONFORMANCE) --engine $(or $(ENGINE),docker) $(PYTEST_ARGS)

.PHONY: engine-up
engine-up: ## make sure that a container engine answers (ENGINE=docker|system-user|swarm|podman|kube)
	@scripts/engine.sh

.PHONY: images
images: env engine-up ## build the test images that are missing (three minutes the first time)
	@$(BIN)/python tests/images/build.py

.PHONY: proxy
proxy: ## npm's configurable-http-proxy
	@scripts/tools.sh proxy

.PHONY: helm
helm: ## Helm, for the chart and its tests
	@scripts/tools.sh helm

.PHONY: chromium
chromium: ## a browser for the tests of the pages
	@scripts/tools.sh chromium

.PHONY: labextension
labextension: ## the panel in JupyterLab, in overlayspawner/labextension (needs Node; without it all else works)
	@scripts/labextension.sh

.PHONY: labextension-check
labextension-check: ## lint and unit tests of the panel
	@scripts/labextension.sh check

.PHONY: btrfs
btrfs: ## a file system with quotas for the tests of storage (as root)
	@scripts/tools.sh btrfs

.PHONY: compiler
compiler: ## a C compiler for the tests of builds that fail (as root)
	@scripts/tools.sh compiler

.PHONY: bench
bench: env engine-up images proxy ## measure (BENCH=spawn, change, install, bootstrap, sixty or panel, of benchmarks/)
	@$(BIN)/python benchmarks/$(BENCH).py $(BENCH_ARGS)

.PHONY: wheel
wheel: env labextension ## the wheel of a release, in dist/: with the panel, and bytecode for every supported Python (WHEEL_ARGS=--incomplete)
	@$(BIN)/python scripts/bytecode.py $(WHEEL_ARGS)
	@$(BIN)/python -m build --wheel --outdir dist .

.PHONY: chart
chart: env labextension ## the Helm chart with the wheel in it, in dist/ (CHART_ARGS=--dependency FILE)
	@$(BIN)/python scripts/chart.py $(CHART_ARGS)

.PHONY: clean
clean: ## remove what was made here: environments, images, caches, and an engine started here
	@if docker info >/dev/null 2>&1; then python3 tests/images/build.py --clean; fi
	@scripts/kube.sh stop
	@scripts/podman.sh stop
	@scripts/engine.sh stop
	@rm -rf $(VENV) $(VENV_HUB5) .cache build dist overlayspawner/hub/bytecode overlayspawner/labextension node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: docs
docs: env ## the manual, in build/site; brings its generated pages up to date first
	@$(BIN)/python -c 'import mkdocs' 2>/dev/null || \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check 'mkdocs>=1.6'
	@$(BIN)/python docs/generate.py
	@$(BIN)/mkdocs build --strict --quiet
