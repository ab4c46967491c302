# make demo      run the pipeline on the embedded faces; prints a table of results and the path of the report
# make demo-ruler  after it: the adapted weights on 2,319 synthetic test faces (about a minute)
# make test      run the tests (make test-all: also those marked slow)
# make lint      check style, docstrings, types and import rules
# make docs      build the documentation site in .work/site
# make serve     start a Prefect server, a worker and the deployments on this machine
# make weights   train the released weights again
# make gpu       for MINUTES=12 on a GPU: tests, benchmarks, then pre-training; results in .work/gpu-day (OUT=…)
# make gpu-bundle  prepare .work/gpu for that, to be carried to a GPU machine without a network
# make sbom      list what is installed, as CycloneDX JSON
# make audit     look up known vulnerabilities of the locked versions (needs the network)
# make clean     delete the environment and everything that the pipeline made
SHELL := /bin/bash
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export VIRTUAL_ENV := $(CURDIR)/.venv
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := true

# FFCV is compiled against OpenCV and libjpeg-turbo. In the tests, Chromium opens the report and the documentation,
# and strace records which network calls the pipeline makes.
BUILD_PACKAGES := build-essential pkg-config libopencv-dev libturbojpeg0-dev git
TEST_PACKAGES := chromium strace

.PHONY: help demo demo-ruler test test-all serve lint docs weights gpu gpu-bundle sbom audit clean
help:
	@sed -n 's/^# make /make /p' Makefile

# Installs the Debian packages in $(1) that are missing.
define install_packages
	@missing=$$(for name in $(1); do dpkg-query -W -f '$${db:Status-Status}' $$name 2>/dev/null | grep -qx installed || echo $$name; done); \
	if [ -n "$$missing" ]; then \
	  echo "installing" $$missing; \
	  sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $$missing > /dev/null; \
	fi
endef

# The virtual environment, with exactly the locked versions.
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

demo-ruler: .venv/ready
	@fra transfer ruler adapted=artifacts/pretrain/model.safetensors released=demo random:0 random:1 --labels 100,400 --part test -o .work/ruler

# One worker more than cores, since some tests wait for servers; one thread for each worker.
test: .venv/ready
	$(call install_packages,$(TEST_PACKAGES))
	@OMP_NUM_THREADS=1 pytest -m "not slow" -n $$(($$(nproc) + 1)) --dist worksteal

# Also the slow tests: a real PostgreSQL, schedules that fire, workers that are killed. About twenty minutes.
test-all: .venv/ready
	$(call install_packages,$(TEST_PACKAGES) postgresql)
	@pytest

serve: .venv/ready
	@python -m pipelines.serve $(if $(HOST),--host $(HOST)) $(if $(PORT),--port $(PORT))

lint: .venv/ready
	@ruff check . && ruff format --check . && mypy && lint-imports --no-logo

# Strict: a link to a page or heading that does not exist stops the build. The command line's page is made from its
# help texts.
docs: .venv/ready
	@typer pipelines.cli.main utils docs --name fra --title "Command line" --output docs/reference/cli.md > /dev/null
	@zensical build --strict
	@echo "see .work/site/index.html, or with search: python -m http.server -d .work/site -b 127.0.0.1"

# In a copy of the project, so that the workspace does not change. If interrupted, it continues when run again.
weights: .venv/ready
	@[ -d .work/weights ] || git clone -q . .work/weights
	@cd .work/weights && python -m pipelines.params recipe=weights && OMP_NUM_THREADS=1 dvc repro pretrain
	@cp .work/weights/artifacts/pretrain/model.safetensors .work/weights/fra/weights/demo-48.safetensors
	@cp .work/weights/fra/weights/demo-48.safetensors fra/weights/demo-48.safetensors
	@cd .work/weights && python -m pipelines.params recipe=weights-64 && OMP_NUM_THREADS=1 dvc repro pretrain
	@cp .work/weights/artifacts/pretrain/model.safetensors fra/weights/demo.safetensors

# With the Python that is there: a GPU machine has its own PyTorch, and no network. What it needs besides is in .work/gpu.
gpu:
	@[ -f .work/gpu/params.yaml ] || $(MAKE) --no-print-directory gpu-bundle
	@python3 -m pipelines.gpu --minutes $(or $(MINUTES),12) $(if $(OUT),--out "$(OUT)") $(if $(EPOCHS),--epochs $(EPOCHS))

# SET="train.batch_size=1024 …": overrides after recipe=gpu-small; PYTHON: the version on the GPU machine.
gpu-bundle: .venv/ready
	@python -m pipelines.gpu.bundle --python $(or $(PYTHON),3.12) $(SET)

# These tools have their own environment, because they are not dependencies of the project.
.work/checkers/ready: .venv/ready
	@python3 -m venv .work/checkers
	@.work/checkers/bin/pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0 pip-audit==2.10.1
	@touch $@

# The same environment gives the same bytes.
sbom: .work/checkers/ready
	@.work/checkers/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o .work/sbom.cdx.json .venv/bin/python
	@echo "see .work/sbom.cdx.json"

# Needs the network: the package index lists the known vulnerabilities of each version.
audit: .work/checkers/ready
	@.work/checkers/bin/pip-audit --strict --disable-pip --require-hashes -r requirements.lock

clean:
	rm -rf .venv artifacts data/raw data/shards data/beton data/manifest .work
