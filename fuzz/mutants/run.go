package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// testTimeout ends a test that hangs: long, since a busy machine is no bug.
const testTimeout = 10 * time.Minute

// outcome is how a test ended.
type outcome int

const (
	passed outcome = iota
	failed
	panicked
	hung
	notRun // it was skipped, or there is none of that name
	notBuilt
)

func (o outcome) String() string {
	return [...]string{"passed", "failed", "panicked", "hung", "was not run", "could not be built"}[o]
}

// runAll runs every mutant and reports whether all were killed.
func runAll(ctx context.Context, root string, mutants []mutant) (ok bool, err error) {
	begun := time.Now()
	r := &runner{ctx: ctx, root: root, verbose: *only != "" && len(mutants) == 1, without: map[test]func() error{}}
	if r.tmp, err = os.MkdirTemp("", "annals-mutants-"); err != nil {
		return false, err
	}
	defer os.RemoveAll(r.tmp)
	for i := range mutants {
		if _, err := mutants[i].apply(root); err != nil {
			return false, err
		}
		t := mutants[i].test
		r.without[t] = sync.OnceValue(func() error { return r.passesWithout(t) })
	}
	next := make(chan *mutant)
	var all sync.WaitGroup
	for range *parallel {
		all.Go(func() {
			for m := range next {
				r.report(m)
			}
		})
	}
	for i := range mutants {
		next <- &mutants[i]
	}
	close(next)
	all.Wait()
	fmt.Printf("%d of %d killed in %v\n", r.killed, len(mutants), time.Since(begun).Round(time.Second))
	return r.killed == len(mutants), ctx.Err()
}

// runner runs mutants.
type runner struct {
	ctx     context.Context
	root    string
	tmp     string
	verbose bool                  // show what tests say
	without map[test]func() error // whether a test passes without any mutant, found once

	mu     sync.Mutex
	killed int
}

func (r *runner) report(m *mutant) {
	took, err := r.kill(m)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		fmt.Printf("SURVIVED  %s (%s): %v\n", m.name, m.bug, err)
		return
	}
	r.killed++
	fmt.Printf("killed    %-34s %s %s, %.1f s\n", m.name, m.test.dir, m.test.name, took.Seconds())
}

// kill runs the mutant's test without the mutant and with it. It returns why the
// mutant survives, nil if it does not.
func (r *runner) kill(m *mutant) (took time.Duration, err error) {
	if err := r.without[m.test](); err != nil {
		return 0, err
	}
	overlay, err := r.overlay(m)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	got, out := r.test(m.test, "-overlay", overlay)
	want := map[string]outcome{"": failed, "panic": panicked, "hang": hung}[m.end]
	if r.verbose {
		fmt.Print(out)
	}
	if got != want {
		return 0, fmt.Errorf("%v %v with it, not %v%s", m.test, got, want, tail(out, got))
	}
	return time.Since(begun), nil
}

func (r *runner) passesWithout(t test) error {
	if got, out := r.test(t); got != passed {
		return fmt.Errorf("%v %v without it%s", t, got, tail(out, got))
	}
	return nil
}

// tail is the end of what a test said, where that says why.
func tail(out string, o outcome) string {
	if o == passed {
		return ""
	}
	return ":\n" + out[max(0, len(out)-3000):]
}

// overlay writes the changed files and returns the name of the file that tells
// the compiler about them.
func (r *runner) overlay(m *mutant) (string, error) {
	changed, err := m.apply(r.root)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(r.tmp, m.name)
	replaced := map[string]string{}
	for file, text := range changed {
		replaced[filepath.Join(r.root, file)] = filepath.Join(dir, file)
		if err := writeFile(filepath.Join(dir, file), []byte(text)); err != nil {
			return "", err
		}
	}
	return writeOverlay(dir, replaced)
}

func writeOverlay(dir string, replaced map[string]string) (path string, err error) {
	text, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "overlay.json")
	return path, writeFile(path, text)
}

func writeFile(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// test runs a test and returns how it ended and what it said.
func (r *runner) test(t test, flags ...string) (outcome, string) {
	args := []string{"test", "-json", "-count=1", "-vet=off", "-timeout", testTimeout.String(), "-run", pattern(t.name)}
	args = append(append(append(args, flags...), t.dir), strings.Fields(t.flags)...)
	cmd := exec.CommandContext(r.ctx, "go", args...)
	cmd.Dir = r.root
	events, err := cmd.Output()
	var stderr []byte
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		stderr = exit.Stderr
	}
	return judge(events, t.name, string(stderr))
}

// pattern is what go test -run takes for one test.
func pattern(name string) string {
	return "^" + strings.ReplaceAll(name, "/", "$/^") + "$"
}

// judge reads the events of go test -json.
func judge(events []byte, name, said string) (o outcome, out string) {
	o = notRun
	var text strings.Builder
	for line := range bytes.Lines(events) {
		var e struct{ Action, Test, Output string }
		if err := json.Unmarshal(line, &e); err != nil {
			return notBuilt, string(line) + said
		}
		text.WriteString(e.Output)
		switch {
		case e.Action == "build-fail":
			o = notBuilt
		case e.Test == name && e.Action == "pass":
			o = passed
		case e.Test == name && e.Action == "fail" && o == notRun:
			o = failed
		case strings.HasPrefix(e.Output, "panic: test timed out"):
			o = hung
		case strings.HasPrefix(e.Output, "panic: ") || strings.HasPrefix(e.Output, "fatal error: "):
			o = panicked
		}
	}
	return o, text.String() + said
}
