# make demo    the whole chain on the embedded faces: a table of results and a report page
# make test    the tests
# make serve   server, worker and deployments on this machine
# make lint    style and types
SHELL := /bin/bash
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export VIRTUAL_ENV := $(CURDIR)/.venv
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := true

# FFCV is compiled against OpenCV and libjpeg-turbo; Chromium opens the report page in the tests, and strace
# writes down what the chain sends.
BUILD_PACKAGES := build-essential pkg-config libopencv-dev libturbojpeg0-dev git
TEST_PACKAGES := chromium strace

.PHONY: help demo test test-all serve lint weights sbom audit clean
help:
	@sed -n 's/^# //p' Makefile | head -4

# Debian packages that are missing, then the virtual environment with exactly the locked versions.
define install_packages
	@missing=$$(for name in $(1); do dpkg-query -W -f '$${db:Status-Status}' $$name 2>/dev/null | grep -qx installed || echo $$name; done); \
	if [ -n "$$missing" ]; then \
	  echo "installing" $$missing; \
	  sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $$missing > /dev/null; \
	fi
endef

.venv/ready: requirements.lock pyproject.toml
	$(call install_packages,$(BUILD_PACKAGES))
	@python3 -m venv .venv 2>/dev/null || { apt-get install -y -qq python3-venv python3-dev > /dev/null && python3 -m venv .venv; }
	@echo "installing Python packages into .venv (some minutes)"
	@pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	@pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: .venv/ready
	@dvc repro
	@python -m pipelines.cli.summary

test: .venv/ready
	$(call install_packages,$(TEST_PACKAGES))
	@OMP_NUM_THREADS=1 pytest -m "not slow" -n auto  # one worker a core, so one thread a worker

# With a real PostgreSQL, schedules that fire, workers that are killed: some twenty minutes.
test-all: .venv/ready
	$(call install_packages,$(TEST_PACKAGES) postgresql)
	@pytest

serve: .venv/ready
	@python -m pipelines.serve $(if $(HOST),--host $(HOST)) $(if $(PORT),--port $(PORT))

lint: .venv/ready
	@ruff check . && ruff format --check . && mypy

# In a copy of the project, so that nothing here changes on the way. Interrupted, it continues.
weights: .venv/ready
	@[ -d .work/weights ] || git clone -q . .work/weights
	@cd .work/weights && python -m pipelines.params recipe=weights && OMP_NUM_THREADS=1 dvc repro pretrain
	@cp .work/weights/artifacts/pretrain/model.safetensors fra/weights/demo.safetensors

# Checkers in an environment of their own, as they are no part of the project.
.work/checkers/ready: .venv/ready
	@python3 -m venv .work/checkers
	@.work/checkers/bin/pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0 pip-audit==2.10.1
	@touch $@

# What is installed, as CycloneDX JSON: the same environment, the same bytes.
sbom: .work/checkers/ready
	@.work/checkers/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o .work/sbom.cdx.json .venv/bin/python
	@echo "see .work/sbom.cdx.json"

# Known vulnerabilities of the locked versions, as the package index tells them: this asks the network.
audit: .work/checkers/ready
	@.work/checkers/bin/pip-audit --strict --disable-pip --require-hashes -r requirements.lock

clean:
	rm -rf .venv artifacts data/raw data/shards data/beton data/manifest .work
