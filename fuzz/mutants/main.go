// Command mutants tests the tests: it puts known bugs into the store, one at a
// time, and sees whether the test that is there to find each of them does.
//
// A suite that has never failed proves little. Every rule that keeps data safe has
// a mutant in list.txt: the few lines that break the rule, and the one test that
// must fail then. The bugs never reach a build: each is compiled with
// go test -overlay from a copy outside the tree. A test kills a mutant only if it
// passes without it.
//
//	go run ./fuzz/mutants                 all mutants
//	go run ./fuzz/mutants -only NAMES     some of them, with what their tests say
//	go run ./fuzz/mutants -write          bring the table in fuzz/README.md up to date
//	go run ./fuzz/mutants -cover PROFILE  what no test runs in the files that decide; see cover.go
//	go run ./fuzz/mutants -sweep FILES    every small change to these files; see sweep.go
//
// It exits with 1 if a mutant survives.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
)

var (
	only     = flag.String("only", "", "run only the mutants of these names, separated by commas")
	write    = flag.Bool("write", false, "write the table of mutants into fuzz/README.md and end")
	parallel = flag.Int("parallel", 2, "how many mutants to run at a time")
	cover    = flag.String("cover", "", "print what this profile of go test -coverprofile says was never run, and end")
	sweep    = flag.String("sweep", "", "change each of these files of one package, separated by commas, in every small way")
	sweepRun = flag.String("run", "", "for -sweep: the tests to run, as in go test -run")
	skip     = flag.String("skip", "", "for -sweep: the tests to leave out, as in go test -skip")
	with     = flag.String("with", "", "for -sweep: a test of another package to run as well, as in list.txt")
	list     = flag.Bool("list", false, "for -sweep: only list the changes")
	changes  = flag.String("changes", "", "for -sweep: the numbers of the changes to run, separated by commas; all without it")
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ok, err := run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(2)
	}
	if !ok {
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context) (ok bool, err error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return false, err
	}
	mutants, err := parse(listText)
	if err != nil {
		return false, err
	}
	switch {
	case *write:
		return true, writeTable(filepath.Join(root, readme), mutants)
	case *cover != "":
		return missedBlocks(root, *cover)
	case *sweep != "":
		return sweepFiles(ctx, root, strings.Split(*sweep, ","))
	}
	if *only != "" {
		if mutants, err = some(mutants, strings.Split(*only, ",")); err != nil {
			return false, err
		}
	}
	return runAll(ctx, root, mutants)
}

// some returns the mutants of these names.
func some(mutants []mutant, names []string) (chosen []mutant, err error) {
	for _, name := range names {
		i := slices.IndexFunc(mutants, func(m mutant) bool { return m.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no mutant %q", name)
		}
		chosen = append(chosen, mutants[i])
	}
	return chosen, nil
}

// moduleRoot is the directory of the module that is tested, the one that this
// command belongs to.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("finding module %s: %w", module, err)
	}
	dir := strings.TrimSpace(string(out))
	return cmp.Or(dir, "."), nil
}

const module = "github.com/annalsdb/annals"
