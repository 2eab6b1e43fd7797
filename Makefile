# `make run` is the first thing to try; `make help` lists the rest.
PYTHON ?= python3
VENV := .local/venv/bin
LOCAL := $(PYTHON) -m local
export PATH := $(CURDIR)/.local/bin:$(PATH)

COMPILE = CUSTOM_COMPILE_COMMAND='make lock' $(VENV)/pip-compile --quiet --generate-hashes --strip-extras \
	--no-emit-find-links --no-emit-index-url $(UPGRADE)
# The tests that need Python alone: no cluster, no root, no compiled or installed program.
UNIT := -m "not cluster and not long and not tools and not slow" --ignore tests/charts --ignore tests/cluster -n auto

.PHONY: help run stop clean dev unit coverage test test-long lint format docs golden lock bench bench-scale bump release

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: ## a local Kubernetes with the API and Minecraft server 1 in it
	@$(LOCAL) up

stop: ## stop the local cluster; the worlds are kept
	@$(LOCAL) stop

clean: ## stop the local cluster and remove the worlds
	@$(LOCAL) clean

dev: ## Flask on this machine against the local cluster, reloading on change
	@$(LOCAL) cluster
	@local/dev

unit: ## the tests that need Python alone: no cluster, no root, nothing compiled (1 minute)
	@$(LOCAL) venv
	@$(VENV)/python -m pytest $(UNIT) -q

coverage: ## which lines `make unit` runs
	@$(LOCAL) venv
	@$(VENV)/python -m pytest $(UNIT) -q --cov --cov-report=term

test: ## every test but the long ones, on the local cluster
	@$(LOCAL) cluster
	@$(VENV)/python -m tests.run

test-long: ## the tests that take minutes: hundreds of kills, long random walks
	@$(LOCAL) cluster
	@$(VENV)/python -m pytest -m long

format: ## ruff's fixes and formatting
	@$(LOCAL) venv
	$(VENV)/ruff check --fix .
	$(VENV)/ruff format .

docs: ## write the charts' READMEs from their values (helm-docs)
	@$(LOCAL) tools
	@"$$($(LOCAL) helm-docs | tail -n 1)" --chart-search-root charts --log-level warning

golden: ## write tests/charts/manifests: what each chart renders from each of its ci files
	@$(LOCAL) tools
	@$(VENV)/python -m tests.charts.golden

lock: ## write requirements.txt and requirements-dev.txt from setup.cfg; UPGRADE=-U, or UPGRADE='-P flask', for newer ones
	@$(LOCAL) venv
	$(COMPILE) --output-file=requirements.txt setup.cfg
	$(COMPILE) --allow-unsafe --constraint=requirements.txt --extra=dev --output-file=requirements-dev.txt setup.cfg

lint: ## ruff, mypy, import-linter, yamllint, codespell, shellcheck, links; and the charts: helm lint, schemas, kube-score
	@$(LOCAL) tools
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
	PYTHONPATH=agent:backup $(VENV)/lint-imports --no-cache --no-logo
	$(VENV)/yamllint --strict .
	$(VENV)/codespell
	$(VENV)/python -m local.lint
	$(VENV)/python -m tests.charts.lint

bump: ## write VERSION=1.2.3 into every place that names the version
	@$(PYTHON) -m local.version "$(VERSION)"

release: ## charts, images, SBOMs and checksums of the version in dist/; commits the CHANGELOG, pushes nothing
	@$(LOCAL) tools
	@$(VENV)/python -m local.release

bench: ## what the API costs, compared with helm and kubectl by hand, into docs/benchmarks.md (14 minutes)
	@$(LOCAL) cluster
	@$(VENV)/python -m tests.bench

bench-scale: ## what the API costs with 2,000 simulated servers, into docs/scale.md (20 minutes)
	@$(LOCAL) cluster
	@$(VENV)/python -m tests.scale
