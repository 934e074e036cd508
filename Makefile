# Targets for developers and for the first look; `make help` lists them.

PYTHON ?= python3
JOBS ?= 3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP_INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest --numprocesses $(JOBS)
# in the order of the folders: what is in the last of them is fast, so that all workers end at about the same time
BY_FILE := --dist loadfile --no-loadscope-reorder
LOCK_VENV := $(VENV)/lock
# one file for every platform and Python, without a word on where it was made
LOCK := $(LOCK_VENV)/bin/uv pip compile setup.cfg --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --custom-compile-command 'make lock'

# what the manifests are checked with, of one version each; without Go those checks are left out
TOOLS := .cache/bin
GO_TOOLS := $(if $(shell command -v go),$(TOOLS)/.kustomize-v5.7.1 $(TOOLS)/.kube-score-v1.20.0)
KUBERNETES := .cache/kubernetes
KUBERNETES_TESTS := tests/deploy/kubernetes

DEPLOYMENT_TESTS := tests/deploy tests/end_to_end/test_rolling_restart.py tests/end_to_end/test_restored_database.py

# each of the many processes that tests start would compile all modules again
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-long test-faults test-deployment test-image test-kubernetes soak check check-alerts format lock bench bench-scale \
	bench-adoption bench-compare clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP)  ## Run the main job on embedded parts until Ctrl-C (ONCE=1: end after the answers)
	@$(BIN)/python -m examples.demo $(if $(ONCE),--once)

test: $(STAMP)  ## Run all tests on real parts but the long ones (ARGS=... for pytest, JOBS=1: one after another)
	@$(PYTEST) $(BY_FILE) -m 'not long and not image' $(ARGS)

test-faults: $(STAMP)  ## Run the whole fault suite (needs a JDK and Maven)
	@$(PYTEST) --dist worksteal -m faults \
		$(addprefix --ignore=,$(DEPLOYMENT_TESTS) $(addprefix tests/,contract integration storage unit)) $(ARGS)

test-long: $(STAMP)  ## Run what else takes long: further servers, engines, sizes
	@$(PYTEST) $(BY_FILE) -m 'long and not faults and not image' \
		$(addprefix --ignore=,$(DEPLOYMENT_TESTS)) $(ARGS)

test-deployment: $(STAMP)  ## Restart and restore under load, and ask Prometheus all queries (needs a JDK, Maven, Prometheus)
	@$(PYTEST) $(BY_FILE) -m 'long and not image' \
		--ignore-glob='*test_manifests*' --ignore=$(KUBERNETES_TESTS) $(DEPLOYMENT_TESTS) $(ARGS)

test-image: $(STAMP)  ## Build the image and run both processes in it (needs root, buildah, debootstrap, runc; no Docker)
	@$(BIN)/python -m pytest -m image tests/deploy $(ARGS)

test-kubernetes: $(STAMP) $(GO_TOOLS) $(KUBERNETES)/.built  ## Let a Kubernetes API server judge the manifests (needs Go; takes 10 minutes once)
	@AGGREGATOR_TEST_REQUIRE_KUBERNETES=1 $(BIN)/python -m pytest $(KUBERNETES_TESTS) $(ARGS)

soak: $(STAMP)  ## Let random faults happen for MINUTES=10 (SEED=... begins with that one; needs a JDK and Maven)
	@$(BIN)/python -m tests.soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(ARGS)

check: $(STAMP) $(GO_TOOLS)  ## Check style, types, imports between packages, manifests (needs Go), and that generated pages are true
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m docs.generate --check
	$(BIN)/hadolint deploy/Dockerfile
	@$(MAKE) --no-print-directory check-alerts
	$(BIN)/python -m pytest --quiet tests/deploy/test_manifests.py tests/deploy/test_manifests_valid.py

check-alerts:  ## Check and test the alerts, and Prometheus's settings (needs promtool)
	@if command -v promtool >/dev/null; then \
		cd deploy/prometheus && promtool check rules alerts.yaml && promtool check config prometheus.yml \
			&& promtool test rules alerts_test.yaml; \
	elif [ "$$AGGREGATOR_TEST_REQUIRE_PROMETHEUS" = 1 ]; then \
		echo 'error: promtool is missing: apt-get install prometheus'; exit 1; \
	else \
		echo 'promtool is missing, the alerts are not checked: apt-get install prometheus'; \
	fi

format: $(STAMP)  ## Format the code and make the generated pages
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python -m docs.generate

lock:  ## Lock what setup.cfg allows with hashes, in requirements/ (ARGS=--upgrade: newest versions)
	@$(PYTHON) -m venv $(LOCK_VENV)
	@$(LOCK_VENV)/bin/pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
	$(LOCK) $(ARGS) --extra consumer --extra redis --extra api --extra docs --extra dev --output-file requirements/dev.txt
	$(LOCK) --constraints requirements/dev.txt --extra consumer --output-file requirements/consumer.txt
	$(LOCK) --constraints requirements/dev.txt --extra redis --output-file requirements/redis.txt
	$(LOCK) --constraints requirements/dev.txt --extra api --output-file requirements/api.txt
	$(LOCK) --constraints requirements/dev.txt --extra api --extra docs --output-file requirements/api-docs.txt
	$(LOCK) --constraints requirements/dev.txt --extra consumer --extra redis --extra api --extra docs --extra clowder \
		--extra tracing --output-file requirements/image.txt
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
		| $(subst setup.cfg,-,$(LOCK)) --constraints requirements/dev.txt --output-file requirements/build.txt

bench: $(STAMP)  ## Measure ingest, latency and reads beside the bare limits (5 minutes; needs a JDK and Maven)
	@$(BIN)/python -m benchmarks $(ARGS)

bench-scale: $(STAMP)  ## Compare a database of a million clusters with an empty one, and explain every statement
	@$(BIN)/python -m benchmarks.scale $(ARGS)

bench-adoption: $(STAMP)  ## Adopt a database of an existing deployment of a million clusters while others use it
	@$(BIN)/python -m benchmarks.adoption $(ARGS)

bench-compare: $(STAMP)  ## Measure as `bench` does, this version and BASE=<commit> in turn
	@$(BIN)/python -m benchmarks --base $(BASE) $(ARGS)

clean:  ## Remove what the other targets made
	rm -rf $(VENV) .demo .cache build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(STAMP): setup.cfg pyproject.toml requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'error: Python 3.11 or newer is needed; name it with PYTHON=/path/to/python3'; exit 1; }
	@echo 'Making $(VENV) ...'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) --require-hashes --requirement requirements/dev.txt
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(TOOLS)/.kustomize-%:
	GOBIN=$(abspath $(TOOLS)) go install sigs.k8s.io/kustomize/kustomize/v5@$*
	@touch $@

$(TOOLS)/.kube-score-%:
	GOBIN=$(abspath $(TOOLS)) go install github.com/zegl/kube-score/cmd/kube-score@$*
	@touch $@

$(KUBERNETES)/.built: $(addprefix $(KUBERNETES_TESTS)/,build go.mod go.sum)
	@command -v go >/dev/null || { echo 'error: Go is needed'; exit 1; }
	@echo 'Building kube-apiserver, etcd and kubectl ...'
	@mkdir -p $(@D)
	@$(KUBERNETES_TESTS)/build $(@D)
	@touch $@
