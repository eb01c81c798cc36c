# Needs make, git, and Python 3.11 or newer with its venv module. Everything else is installed into .venv in this folder,
# and only once.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-faults test-cluster lint test-gpu gpu infra benchmark lock sbom audit clean

BIN := .venv/bin

# What the demo and the examples of the README need. A variable, because commas end the arguments of `call`.
DEMO := .[openvino,query,compact,compare,plot,export]

# The first Python that runs and is new enough. A name on the PATH may be a version manager's shim that only fails.
CHECK_PYTHON := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3.12 python3.11 python3; do \
	"$$python" -c '$(CHECK_PYTHON)' >/dev/null 2>&1 && echo "$$python" && break; done)

export VIDEO

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

demo: .venv/.installed-demo ## run the job on a sample video, or on your own: make demo VIDEO=path
	@$(BIN)/posebatch demo $${VIDEO:+"$$VIDEO"}

# A process for each core, at most four: each may start a Ray and an S3 server of its own. PARALLEL= runs all in one.
# In the order of the folders: the longest files are those with the fewest tests, and would come last otherwise.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: .venv/.installed-dev ## run the tests; PYTEST_ARGS='-k name' selects some
	@$(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

test-faults: .venv/.installed-dev ## run the whole fault suite (under an hour on 2 cores) and print its figures
	@.ci/faults $(BIN)/python $(PYTEST_ARGS)

# Needs root, iproute2, util-linux, faketime and /dev/net/tun.
test-cluster: .venv/.installed-dev ## run on several hosts in network namespaces (half an hour, as root) and print a table
	@.ci/cluster $(BIN)/python $(PYTEST_ARGS)

lint: .venv/.installed-dev ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# `make test` skips the tests that need a GPU on a machine without one. Here a skip is a failure.
test-gpu: .venv/.installed-dev ## run the tests that need a GPU; fails without a GPU
	@mkdir -p .pytest_cache
	@$(BIN)/python -m pytest -m gpu --junit-xml=.pytest_cache/gpu.xml $(PYTEST_ARGS)
	@grep -q 'skipped="0"' .pytest_cache/gpu.xml || { echo "test-gpu: tests were skipped, see above" >&2; exit 1; }

gpu: .venv/.installed-dev ## run the GPU tests and the GPU benchmarks; figures go to out/gpu
	@.ci/gpu $(BIN)/python

infra: .venv/.installed-demo ## write the files of infra/cpu, infra/gpu and infra/spot from infra/values.yaml
	@$(BIN)/python infra/render.py

benchmark: .venv/.installed-demo ## measure the speed of the job on this machine; BENCHMARK_ARGS are its arguments
	@$(BIN)/python jobs/benchmark.py $(BENCHMARK_ARGS)

# The image's Python and platform. The tests run with this Python, so they run with the versions of the lock as long as
# it is fresh. Known pins stay; make lock LOCK_ARGS=--upgrade takes the newest versions.
lock: | $(BIN)/python ## pin the image's requirements with hashes, in infra/requirements.lock
	@$(uv_settings); $$uv pip compile pyproject.toml --extra openvino --quiet --generate-hashes \
		--python-version 3.11 --python-platform x86_64-manylinux_2_28 --custom-compile-command "make lock" \
		$(LOCK_ARGS) --output-file infra/requirements.lock

sbom: | $(BIN)/python ## list the image's requirements as a CycloneDX SBOM, out/sbom.json
	@mkdir -p out
	@$(uv_settings); $$uv tool run --quiet --from cyclonedx-bom cyclonedx-py requirements \
		infra/requirements.lock --pyproject pyproject.toml --output-reproducible --of JSON --output-file out/sbom.json

audit: | $(BIN)/python ## look for known vulnerabilities of the image's requirements; a report, never a failure
	@$(uv_settings); .ci/audit $(BIN)/python

clean: ## delete results and caches; .venv stays
	rm -rf demo out build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

$(BIN)/python:
	@"$(PYTHON)" -c '$(CHECK_PYTHON)' >/dev/null 2>&1 || { \
		echo "posebatch needs Python 3.11 or newer with its venv module (Debian, Ubuntu: the package python3-venv)." >&2; \
		echo "Found: $(if $(PYTHON),$(PYTHON),none). Name another one: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; \
		exit 1; }
	@echo "making a virtual environment in .venv with $(PYTHON)"
	@"$(PYTHON)" -m venv .venv || { rm -f $@; exit 1; }

.venv/.installed-demo: pyproject.toml | $(BIN)/python
	@echo "installing posebatch and what it needs into .venv: about 6 GB the first time"
	@$(call install,$(DEMO))
	@touch $@

.venv/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "installing posebatch, what it needs and the tools for its tests into .venv: about 6 GB the first time"
	@$(call install,.[dev])
	@touch .venv/.installed-demo $@

# uv, with the registry and the certificates of pip.
define uv_settings
uv="$(BIN)/python -m uv"; pip="$(BIN)/python -m pip --disable-pip-version-check"; \
	$$uv --version >/dev/null 2>&1 || $$pip install --quiet uv || echo "uv is unavailable; using pip" >&2; \
	index=$${PIP_INDEX_URL:-$$($$pip config get global.index-url 2>/dev/null)}; \
	cert=$${PIP_CERT:-$$($$pip config get global.cert 2>/dev/null)}; \
	test -z "$$index" || export UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$$index}"; \
	test -z "$$cert" || export SSL_CERT_FILE="$${SSL_CERT_FILE:-$$cert}"
endef

# $(call install,REQUIREMENT): installs with uv, which is several times faster than pip and comes from the same registry.
# Falls back to pip if uv is unavailable or fails. uv does not read pip's configuration, so pip's registry and
# certificates are passed to it.
#
# torch and torchvision are the registry's default pair. It includes CUDA (hence the size) and also runs without a GPU.
# A smaller torch without CUDA does not work: the registry's torchvision cannot be imported beside it.
#
# The mode `compat` puts this folder on Python's path. By the default mode, a Python that is started in the folder above
# takes a clone called posebatch for the package.
define install
	$(uv_settings); \
	if $$uv --version >/dev/null 2>&1 && \
		$$uv pip install --quiet --python $(BIN)/python -C editable_mode=compat -e '$(1)'; then exit 0; fi; \
	echo "installing with pip, which takes longer"; \
	$$pip install --quiet --config-settings editable_mode=compat -e '$(1)'
endef
