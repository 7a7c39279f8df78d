# make alone lists the targets. Each works in a fresh clone on a machine with Go.

MODULES     := . cmd/annals fuzz/model
PLATFORMS   := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
DEMO        := demo
FUZZTIME    := 60s
SOAK        := 8h
READERS     := 60s
export GOFLAGS := -buildvcs=false

.PHONY: help run build test check race slow cross crash deepcrash bench kill mutants model soak readers fuzz cover clean vuln system damage faults

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 12

run: build ## record this machine, kill a recorder, reopen, show what survived
	bin/annals demo $(DEMO)

build: ## build the command line tool: bin/annals
	go build -C cmd/annals -o ../../bin/annals .

test: check race slow cross ## everything that must hold before a change lands

check: ## gofmt, vet, staticcheck
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	@for m in $(MODULES); do echo "vet and staticcheck: $$m"; \
		(cd $$m && go vet ./... && go run $(STATICCHECK) ./...) || exit 1; done

race: ## all tests of all modules under the race detector, the scripts and the Python checker among them
	@for m in $(MODULES); do echo "test: $$m"; (cd $$m && go test -race -timeout 15m ./...) || exit 1; done

slow: ## what the race detector would make too slow: a million keys, all crash sequences, faults, damage, models
	go test -count=1 -v -timeout 20m -run 'Million|CrashAnywhere|FaultAnywhere|TestDamage|TestRepair' . ./fuzz
	cd fuzz/model && go test -count=1 -v -timeout 20m .

cross: ## build for every platform
	@for p in $(PLATFORMS); do echo "build: $$p"; for m in $(MODULES); do \
		(cd $$m && CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} go vet ./...) || exit 1; done; done

crash: ## a million crashes: all sequences at both tear sizes, 200 long ones, kills, recoveries of recoveries
	go test ./fuzz -count=1 -v -run CrashAnywhere -crash.both -crash.long=200 -crash.states=400000 -timeout 60m

deepcrash: ## the same with all subsets of up to 12 pending effects and every byte of each write: hours
	go test ./fuzz -count=1 -v -run CrashAnywhere -crash.both -crash.all=12 -crash.random=8 -crash.lengths=512 -crash.long=200 -crash.deep=100 -crash.states=1000000 -timeout 600m

faults: ## fail every operation of every workload in every way
	go test ./fuzz -count=1 -v -run FaultAnywhere -fault.full -timeout 60m

bench: ## the store beside its peers and the raw system calls; BENCH=quick or BENCH=large
	cd bench && GOWORK=off go run . $(addprefix -,$(BENCH))

kill: ## kill a writing process 2,000 times, and an intake of a spool 1,000 times
	go test ./fuzz -count=1 -v -run Kill -kill.rounds=2000 -timeout 60m
	go test -C cmd/annals -count=1 -v -run KilledIntake -intake.kills=1000 -timeout 60m

model: ## random operations against a map, options against each other, histories against porcupine: 100 times as many
	cd fuzz/model && go test . -count=1 -v -rapid.checks=60000 -linear.histories=6000 -timeout 600m

readers: ## four reader processes beside a writer that is killed, READERS long for each policy; how soon they see, and what they cost
	go test ./fuzz/beside -count=1 -v -beside.for=$(READERS) -bench . -benchtime 1x -timeout 0

soak: readers kill ## the readers for READERS, the kills, then mixed load with faults, crashes and backups under the race detector for SOAK
	go test ./fuzz -race -count=1 -v -run Soak -soak=$(SOAK) -timeout 0

mutants: ## put known bugs into the store, one at a time: the test for each must fail
	go run ./fuzz/mutants

system: ## the real binary: 20,000 kills, every fault at every system call, every short write, full disks
	go test ./fuzz/system -count=1 -v -system.rounds=20000 -system.sites=0 -system.limits=0 -timeout 10h

fuzz: ## run each native fuzz target of each module for FUZZTIME
	@for m in $(MODULES); do (cd $$m && go test -list '^Fuzz' ./... | \
		awk '/^Fuzz/ { name[++n] = $$1 } /^ok/ { for (i = 1; i <= n; i++) print name[i], $$2; n = 0 }' | \
		while read -r target package; do echo "fuzz: $$target in $$package"; \
			go test $$package -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x </dev/null || exit 1; done) || exit 1; done

damage: ## damage small stores at random in a million ways
	go test ./fuzz -count=1 -v -run 'TestDamage(BesideIndex)?$$' -damage.random=150000 -damage.index=1 -timeout 180m

vuln: ## known vulnerabilities in what is called; asks vuln.go.dev, so it needs a network and is no part of test
	@for m in $(MODULES); do echo "govulncheck: $$m"; (cd $$m && go run $(GOVULNCHECK) ./...) || exit 1; done

cover: ## what no test runs in the files that decide what is data; fuzz/README.md must explain it
	go test -coverprofile cover.out -coverpkg ./,./segment,./wal,./index,./compact,./replace \
		. ./segment ./wal ./index ./compact ./replace ./fuzz
	go tool cover -func cover.out | tail -1
	go run ./fuzz/mutants -cover cover.out

clean: ## remove what the targets made
	rm -rf bin cover.out $(DEMO)
