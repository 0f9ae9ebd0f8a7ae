# podwall. `make help` lists the targets.

SHELL := /bin/bash
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
GO_BUILD := CGO_ENABLED=0 go build -trimpath -buildvcs=false
LDFLAGS := -s -w -X main.version=$(VERSION)
# What a release contains depends on the source, its commit and Go alone; see docs/image.md.
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null)
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
IMAGE_TAG ?= $(or $(shell sed -nE 's/^appVersion: *"?([^" ]+)"?.*/\1/p' deploy/chart/podwall/Chart.yaml 2>/dev/null),development)

KUBE_VERSION := 1.35.4
# kube-proxy to measure beside; newer than the cluster of the tests.
PROXY_VERSION := 1.37.2
V := k8s.io/component-base/version
KUBE_LDFLAGS := -s -w -X $(V).gitVersion=v$(KUBE_VERSION) -X $(V).gitMajor=1 -X $(V).gitMinor=35 \
	-X $(V).gitTreeState=clean -X k8s.io/client-go/pkg/version.gitVersion=v$(KUBE_VERSION)
CNI_PLUGINS := github.com/containernetworking/plugins/plugins
CONTAINERD := github.com/containerd/containerd/v2/cmd
CONTAINERD_TAGS := no_btrfs no_devmapper no_zfs no_tracing no_grpc_tracing

.PHONY: help build image release vulncheck demo test test-go fuzz lint vet golangci deploy bench
.PHONY: pictures prepare kubeapi kube-proxy kube helm netpol standin cni containerd e2e check vm vm-ipvs mutants soak golden clean FORCE

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

build: bin/podwall-agent bin/podwall-gate bin/podwall-lab bin/kubectl-podwall ## build the programs into bin/

bin/podwall-agent bin/podwall-gate bin/podwall-lab bin/kubectl-podwall: bin/%: FORCE
	@mkdir -p bin
	$(GO_BUILD) -ldflags '$(LDFLAGS)' -o $@ ./cmd/$*

image: ## write the container image for amd64 and arm64, with its SBOM, into bin/image; see docs/image.md
	go run -C tools ./image -root $(CURDIR) -out $(CURDIR)/bin/image -version '$(VERSION)' -revision '$(REVISION)' \
		-tag '$(IMAGE_TAG)' -epoch '$(SOURCE_DATE_EPOCH)'

release: image ## write all that is given away into dist, with checksums; variables in docs/release.md
	go run -C tools ./release -root $(CURDIR) -images $(CURDIR)/bin/image -out $(CURDIR)/dist -version '$(VERSION)' -revision '$(REVISION)' \
		-tag '$(IMAGE_TAG)' -epoch '$(SOURCE_DATE_EPOCH)' -builder '$(BUILDER_ID)' -key '$(SIGN_KEY)' -url '$(RELEASE_URL)'

vulncheck: ## look for known vulnerabilities in what the programs call; GOVULNDB is the database
	@hack/vulncheck

demo: build ## show the five example policies and the functional table on this machine's kernel
	bin/podwall-lab demo

test: prepare lint build image kubeapi kube helm cni containerd ## run everything: linters, all tests with the race detector, real kernel, API server and cluster
	$(MAKE) --no-print-directory test-go

test-go: ## run the tests only; make build image kube helm cni containerd must have been run
	CI=$(CI) PODWALL_AGENT=$(CURDIR)/bin/podwall-agent PODWALL_CNI_BIN=$(CURDIR)/bin/cni \
	go test -race -timeout 40m ./...
	CI=$(CI) go test -C tools -timeout 40m ./...

FUZZTIME ?= 20s

fuzz: ## run every fuzz target for FUZZTIME (20s); their seeds also run in every test
	@set -eo pipefail; grep -rHoE '^func Fuzz[[:alnum:]]+' --include='*_test.go' internal | sort | while IFS=: read -r file target; do \
		echo "== $${file%/*} $${target#func }"; \
		go test ./$${file%/*} -run '^$$' -fuzz "^$${target#func }\$$" -fuzztime $(FUZZTIME); \
	done

prepare: ## install what the tests need beside Go (Debian, as root; else says what is missing)
	@hack/prepare

lint: vet golangci ## run the linters, versions pinned in tools/lint/go.mod
	@test -z "$$(gofmt -l cmd internal examples test tools)" || { echo "gofmt is needed:"; gofmt -l cmd internal examples test tools; exit 1; }

vet: ## run go vet
	go vet ./...
	go vet -C tools ./...

golangci: ## run golangci-lint with the linters of .golangci.yml
	go tool -modfile=tools/lint/go.mod golangci-lint run ./...
	cd tools && go tool -modfile=lint/go.mod golangci-lint run ./...

kubeapi: ## build the API server and kube-proxy for integration tests (about 6 CPU minutes the first time)
	@mkdir -p bin
	CGO_ENABLED=0 go build -C test/kubeapi -trimpath -buildvcs=false -ldflags '$(KUBE_LDFLAGS)' -o $(CURDIR)/bin/ . ./kube-proxy

kube-proxy: ## build the kube-proxy that bench services measures beside podwall (3 CPU minutes the first time)
	@mkdir -p bin
	CGO_ENABLED=0 go build -C test/kubeproxy -trimpath -buildvcs=false \
		-ldflags '$(subst $(KUBE_VERSION),$(PROXY_VERSION),$(subst gitMinor=35,gitMinor=37,$(KUBE_LDFLAGS)))' \
		-o $(CURDIR)/bin/kube-proxy-1.37 .

kube: kubeapi ## build the rest of a cluster: kubelet, controllers, scheduler, kubectl, a pod's image (6 CPU minutes the first time)
	CGO_ENABLED=0 go build -C test/kubeapi -trimpath -buildvcs=false -ldflags '$(KUBE_LDFLAGS)' -o $(CURDIR)/bin/ ./kube ./agnhost
	gcc -Os -s -static -DVERSION=$(KUBE_VERSION) -o bin/pause $$(go list -C test/kubeapi -m -f '{{.Dir}}' k8s.io/kubernetes)/build/pause/linux/pause.c

helm: ## build helm, of the version that checks the chart (2 CPU minutes the first time)
	@mkdir -p bin
	CGO_ENABLED=0 go build -C tools -trimpath -buildvcs=false -ldflags '-s -w' -o $(CURDIR)/bin/helm helm.sh/helm/v4/cmd/helm

netpol: ## build upstream's specs of the network (4 CPU minutes the first time)
	@mkdir -p bin
	CGO_ENABLED=0 go build -C test/kubeapi -trimpath -buildvcs=false -o $(CURDIR)/bin/ k8s.io/kubernetes/test/images/regression-issue-74839
	CGO_ENABLED=0 go test -C test/kubeapi -c -trimpath -buildvcs=false -ldflags '$(KUBE_LDFLAGS)' -o $(CURDIR)/bin/netpol.test ./netpol

standin: ## build a stand-in for another agent into bin/, to measure against; see docs/performance.md
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -o bin/standin ./test/standin

cni: ## build the CNI plugins that tests wire pods with
	@mkdir -p bin/cni
	CGO_ENABLED=0 go build -C test/cni -trimpath -buildvcs=false -o $(CURDIR)/bin/cni/ \
		$(CNI_PLUGINS)/main/bridge $(CNI_PLUGINS)/main/ptp \
		$(CNI_PLUGINS)/ipam/host-local $(CNI_PLUGINS)/meta/portmap

containerd: ## build a container runtime, containerd and runc, for tests of the start gate (3 CPU minutes the first time, needs gcc)
	@mkdir -p bin/containerd
	CGO_ENABLED=0 go build -C test/containerd -trimpath -buildvcs=false -tags '$(CONTAINERD_TAGS)' -ldflags '-s -w' -o $(CURDIR)/bin/containerd/ \
		./probe $(CONTAINERD)/containerd $(CONTAINERD)/containerd-shim-runc-v2 $(CONTAINERD)/ctr
	CGO_ENABLED=1 go build -C test/containerd -trimpath -buildvcs=false -tags seccomp -ldflags '-s -w' -o $(CURDIR)/bin/containerd/ github.com/opencontainers/runc

E2E ?= run

e2e: build kube helm netpol cni containerd image ## try podwall as installed on real clusters: upstream's specs and operators' steps; writes docs/reports (see docs/e2e.md)
	@hack/prepare e2e
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -o bin/podwall-e2e ./test/cluster/e2e
	bin/podwall-e2e $(value E2E)

pictures: ## take the pictures of docs/ui.md again, with Debian's chromium
	PODWALL_PICTURES=$(CURDIR)/docs go test ./test/browser -run Pictures -count=1

deploy: ## render deploy/ from the Helm chart, and the chart's table of values
	go test -C tools ./chart -count=1 -run Current -update

check: build ## run the case files on this kernel, both wirings (a few minutes)
	bin/podwall-lab check --backend kernel --wiring routed testdata/cases/recipes.jsonl testdata/cases/checklist.jsonl testdata/cases/cyclonus.jsonl.gz
	bin/podwall-lab check --backend kernel --wiring bridge testdata/cases/recipes.jsonl testdata/cases/checklist.jsonl testdata/cases/cyclonus.jsonl.gz

VM ?=

vm: build cni ## run what depends on the kernel in virtual machines with 5.10, 6.1, 6.12 and 7.3, into docs/reports/kernels.md; see hack/vm/README.md
	hack/vm/all $(VM)

vm-ipvs: build kubeapi ## run beside kube-proxy in IPVS mode, in virtual machines with kernels 5.10 and 6.1 (15 minutes)
	hack/vm/ipvs

mutants: ## put typical mistakes in, one at a time; every one must be noticed by a test (45 minutes)
	go run ./test/mutants

BENCH_DIR ?= bench

bench: build kubeapi kube-proxy standin ## measure what the agent costs on this machine, into BENCH_DIR (bench); see docs/performance.md
	@mkdir -p $(BENCH_DIR)
	bin/podwall-lab bench packets --progress --rounds 24 --peer 'chains=exec bin/standin' --out $(BENCH_DIR) -o markdown > $(BENCH_DIR)/packets.md
	bin/podwall-lab bench web --peer 'chains=exec $(CURDIR)/bin/standin' --out $(BENCH_DIR) -o markdown > $(BENCH_DIR)/web.md
	bin/podwall-lab bench control --out $(BENCH_DIR) -o markdown > $(BENCH_DIR)/control.md
	bin/podwall-lab bench services --out $(BENCH_DIR) -o markdown > $(BENCH_DIR)/services.md

soak: build image cni containerd ## the long runs: random cases by programs and packets, a container runtime, mutants, IPVS in virtual machines (an hour)
	PODWALL_SOAK=1 PODWALL_AGENT=$(CURDIR)/bin/podwall-agent PODWALL_CNI_BIN=$(CURDIR)/bin/cni \
	go test ./internal/explain ./internal/kubectl ./test/soak ./test/attack ./test/cut ./test/faults ./test/gate -count=1 -v -timeout 3h
	PODWALL_SOAK=1 go test -C tools ./image ./release -count=1 -v -timeout 1h
	go vet -C test/containerd ./... && go test -C test/containerd ./... -count=1 -v
	$(MAKE) --no-print-directory mutants
	@if [ -d bin/vm/bookworm ]; then $(MAKE) --no-print-directory vm-ipvs; else echo "IPVS skipped: no kernels in bin/vm, see hack/vm/README.md"; fi

# The tests that write something with -update; test/docs holds them complete.
GOLDENS := ^Test(Golden.*|TheReferencePageIsCurrent|TheDocumentHasEveryHookAndSet|Costs.*DoNotGrow|Inputs)$$

golden: ## write the golden rulesets, the baselines of costs and the generated references anew
	go test ./internal/netpol/ruleset ./internal/proxy/ruleset ./internal/config ./internal/observe ./internal/netpol/policy \
		./internal/source/manifest ./internal/kubectl -run '$(GOLDENS)' -update

clean: ## remove what was built
	rm -rf bin

FORCE:
