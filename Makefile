# Everything runs as root on Debian 12. Each target may be repeated.
#
#   make demo        two clusters, four hosts, one flat network, left up to play with
#   make demo-down   take it away
#   make test        lint, types, layers, and all tests but those of labs and test-docker below
#   make bench       ratios against the kernel's vxlan device, on a quiet machine
#   make unit        the tests that need neither root nor the kernel, in seconds
#   make labs        every lab of containerlab/ comes up, is tested as its file says, and goes
#   make image       the image of a lab host for containerlab, meshnet:latest
#   make test-docker that image is built, and two of its containers are a cluster (needs docker.io)
#   make wheel       a wheel in build/dist with the bytecode in it: nodes need no compiler

PYTHON    := .venv/bin/python
SETUP     := .venv/.ready
PACKAGES  := python3-venv python3-bpfcc etcd-server iproute2 iputils-ping nftables \
             tcpdump libfaketime bird2 clang llvm bpftool linux-libc-dev ethtool procps util-linux \
             curl bind9-dnsutils iperf3 openvswitch-switch tshark
# Debian starts what it installs; only tests want Open vSwitch, each its own.
POLICY    := /usr/sbin/policy-rc.d

# `make bench` wants the machine for itself: nothing else may run.
.PHONY: bench demo demo-down image image-wheels test-docker labs pictures test unit lint setup bytecode wheel clean

setup: $(SETUP)

$(SETUP): pyproject.toml Makefile
	@missing=$$(for p in $(PACKAGES); do \
		dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
		echo "installing:" $$missing; \
		if [ ! -e $(POLICY) ]; then trap 'rm -f $(POLICY)' EXIT; \
			printf '#!/bin/sh\nexit 101\n' >$(POLICY); chmod +x $(POLICY); fi; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 $$missing >/dev/null; \
	fi
	@test -x $(PYTHON) || /usr/bin/python3 -m venv --system-site-packages .venv
	@.venv/bin/pip install -qq --disable-pip-version-check -e '.[dev]'
	@touch $@

bytecode: setup
	@$(PYTHON) -m meshnet.dataplane.compiler >/dev/null

demo: bytecode
	@$(PYTHON) -m topology.demo up

demo-down: setup
	@$(PYTHON) -m topology.demo down

lint: setup
	@.venv/bin/ruff format --check -q .
	@.venv/bin/ruff check -q .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-cache | tail -n 3
	@$(PYTHON) -m meshnet.dataplane.abigen --check

unit: setup
	@$(PYTHON) -m pytest -q tests/unit

test: lint bytecode
	@$(PYTHON) -m pytest -q -m "not shipped and not docker" tests

labs: bytecode
	@$(PYTHON) -m pytest -q -m shipped tests/lab/test_shipped_labs.py

pictures: setup
	@for file in containerlab/*.clab.yml; do \
		.venv/bin/meshnet lab graph $$file >docs/pictures/$$(basename $$file .clab.yml).svg; done

# wheels of meshnet and of all it needs, for containerlab/Dockerfile
image-wheels: bytecode
	@rm -rf build/image
	@.venv/bin/pip wheel -qq -w build/image .

image: image-wheels
	@docker build -t meshnet:latest -f containerlab/Dockerfile .

test-docker: image-wheels
	@$(PYTHON) -m pytest -q -m docker tests/docker

bench: bytecode
	@$(PYTHON) -m topology.bench

clean:
	rm -rf .venv build *.egg-info

wheel: bytecode
	@.venv/bin/pip wheel -qq --no-deps -w build/dist .
