# `make run` is the first thing to try; `make help` lists the rest.
PYTHON ?= python3
VENV := .local/venv/bin
LOCAL := $(PYTHON) -m local
export PATH := $(CURDIR)/.local/bin:$(PATH)

.PHONY: help run stop clean dev test test-long lint bench bench-scale

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: ## a local Kubernetes with the API and Minecraft server 1 in it
	@$(LOCAL) up

stop: ## end it all; the worlds are kept
	@$(LOCAL) stop

clean: ## end it all and remove the worlds
	@$(LOCAL) clean

dev: ## Flask on this machine against the local cluster, reloading on change
	@$(LOCAL) cluster
	@local/dev

test: ## every test but the long ones, on the local cluster
	@$(LOCAL) cluster
	@$(VENV)/python -m tests.run

test-long: ## the tests that take long: kills by the hundred, long walks
	@$(LOCAL) cluster
	@$(VENV)/python -m pytest -m long

lint: ## ruff, mypy, import-linter, yamllint; helm lint, Kubernetes' schemas, kube-score, the charts' READMEs
	@$(LOCAL) tools
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
	PYTHONPATH=agent $(VENV)/lint-imports --no-cache --no-logo
	$(VENV)/yamllint --strict .
	$(VENV)/python -m tests.charts.lint

bench: ## what the API costs, beside helm and kubectl by hand, into docs/benchmarks.md (8 minutes)
	@$(LOCAL) cluster
	@$(VENV)/python -m tests.bench

bench-scale: ## what the API costs with 2,000 simulated servers, into docs/scale.md (20 minutes)
	@$(LOCAL) cluster
	@$(VENV)/python -m tests.scale
