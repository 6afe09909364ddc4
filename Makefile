# Every target does its own set-up. `make help` says what there is.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup picture demo test stories check lint types imports fmt heartbeat faults faults-long faults-cloud faults-cloud-long bench machines machines-long story-mail story-vm bench-servers lock clean

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.run ## Make .venv with what TinyFat runs on
	@echo "TinyFat is in $(BIN)/tinyfat; next: make demo, or $(BIN)/tinyfat up"

demo: $(VENV)/.run ## An agent answers three mails, on this machine, from nothing
	@$(BIN)/tinyfat demo

test: $(VENV)/.dev ## The tests; what was skipped and why is listed at the end (under 5 minutes)
	@$(BIN)/python -m pytest -q -n logical --maxprocesses 8 --dist worksteal --durations 10 -m "not openclaw and not pi and not peer and not long and not slow and not heartbeat and not nspawn and not vm and not docker"; \
	  code=$$?; $(BIN)/python -m tests.skipped; exit $$code

stories: $(VENV)/.dev ## The tests that take longer: whole programs, restarts, outages, threads, races (some minutes)
	@$(BIN)/python -m pytest -q -n logical --maxprocesses 8 --dist worksteal --durations 10 -m "slow and not openclaw and not pi and not peer and not long and not nspawn and not vm and not docker"

check: lint types imports ## Lint, types, imports

lint: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.dev
	@$(BIN)/mypy

imports: $(VENV)/.dev
	@$(BIN)/lint-imports

fmt: $(VENV)/.dev ## Format the code
	@$(BIN)/ruff check --fix-only -q .
	@$(BIN)/ruff format .

runtimes: $(VENV)/.dev ## The tests with the real OpenClaw and pi (installs them: 800 MB in the cache)
	@$(BIN)/python -m pytest -q -m "(openclaw or pi) and not nspawn and not vm"

machines: $(VENV)/.dev ## Every kind of machine on this host, for real: systemd, QEMU, Docker (Debian, root: installs them; without KVM half an hour)
	@sh tests/machine_hosts/install_programs.sh
	@$(BIN)/python -m pytest -q -m "(nspawn or vm or docker) and not long"

machines-long: $(VENV)/.dev ## The stories of machines that take many minutes each: a clone of a VM, OpenClaw's image, certificates by ACME
	@sh tests/machine_hosts/install_programs.sh
	@sh tests/stories/install_machine_tools.sh
	@$(BIN)/python -m pytest -q -m "(nspawn or vm or docker) and long"

story-mail: $(VENV)/.dev ## The tests with swaks and a real Postfix (Debian, root: installs both)
	@sh tests/stories/install_mail_peers.sh
	@$(BIN)/python -m pytest -q -m peer

story-vm: $(VENV)/.dev ## Agents on servers of their own: systemd containers, OpenClaw, QEMU, ssh, dig (Debian, root: installs what is missing; 15 minutes)
	@sh tests/stories/install_machine_tools.sh
	@$(BIN)/python -m pytest -q -m "(nspawn or vm) and not long" tests/stories

heartbeat: $(VENV)/.dev ## Every surface gets its nastiest bodies by every key: nothing holds the loop (about a minute)
	@$(BIN)/python -m pytest -q -m heartbeat

faults: $(VENV)/.dev ## Kill the control plane, the database, the box and the runtime under load (under 10 minutes)
	@$(BIN)/python -m tests.faults --short

faults-long: $(VENV)/.dev ## The same, 200 kills
	@$(BIN)/python -m tests.faults --count 200
	@$(BIN)/python -m pytest -q -m "long and not nspawn and not vm and not docker"

faults-cloud: $(VENV)/.dev ## A provider of servers that lies, the control plane killed meanwhile (under 90 seconds)
	@$(BIN)/python -m tests.faults.lying_cloud --runs 60
	@$(BIN)/python -m pytest -q tests/faults/test_shortage_quick.py

faults-cloud-long: $(VENV)/.dev ## The same, 300 runs from a seed of its own
	@$(BIN)/python -m tests.faults.lying_cloud --runs 300 --seed $$(date +%s)

bench: $(VENV)/.dev ## The benchmarks: ratios against peers run beside us
	@$(BIN)/python -m bench

bench-servers: $(VENV)/.dev ## Servers of agents: a hundred at once; cold and warm, against one made by hand (Debian, root)
	@sh tests/stories/install_machine_tools.sh
	@$(BIN)/python -m bench many-servers servers

picture: $(VENV)/.run ## Draw docs/demo.svg from what the demo prints
	@$(BIN)/tinyfat demo > docs/picture/demo.txt
	@$(BIN)/python docs/picture/draw.py docs/demo.svg < docs/picture/demo.txt
	@rm docs/picture/demo.txt

lock: ## Write requirements/*.txt anew (needs uv)
	@requirements/lock.sh

clean: ## Remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "TinyFat needs Python 3.11 or newer; this is $$($(PYTHON) -V 2>&1). Name another: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "Python's venv is missing. On Debian and Ubuntu: sudo apt-get install -y python3-venv"; exit 1; }
	@echo "making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements/run.txt requirements/uv.txt pyproject.toml | $(BIN)/python
	@echo "installing what TinyFat runs on, locked by hash (seconds; the first time with 90 MB of downloads) ..."
	@requirements/install.sh $(BIN)/python --require-hashes -r requirements/run.txt
	@requirements/install.sh $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	@echo "installing what the tests need (seconds) ..."
	@requirements/install.sh $(BIN)/python --require-hashes -r requirements/dev.txt
	@touch $@
