package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/annalsdb/annals"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if text := os.Getenv(taskEnv); text != "" {
		err = work(text)
	} else {
		err = measure(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// A process with this variable set works on the task in it and prints its results.
const taskEnv = "ANNALS_BENCH_TASK"

func work(text string) error {
	var t task
	if err := json.Unmarshal([]byte(text), &t); err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	emit := func(r result) {
		if r.Contestant == "" {
			r.Contestant = t.Contestant
		}
		out.Encode(r) // a lost pipe ends the process
	}
	switch t.Group {
	case "prepare":
		return prepare(&t, emit)
	case "fill":
		return fill(&t, emit)
	}
	for _, g := range groups() {
		if g.name == t.Group {
			return g.run(&t, emit)
		}
	}
	return fmt.Errorf("no group of workloads is called %q", t.Group)
}

// harness runs the tasks of all rounds.
type harness struct {
	scale
	rounds   int
	only     *regexp.Regexp // groups
	peers    *regexp.Regexp
	dir      string
	prepared map[string]bool
	results  []result
	journal  *annals.Journal // nil: keep nothing
}

func measure(ctx context.Context) (err error) {
	h := harness{prepared: map[string]bool{}}
	quick := flag.Bool("quick", false, "a small data set and short rounds: about a minute")
	large := flag.Bool("large", false, "ten million keys")
	only := flag.String("only", "", "regular expression of the groups to run: durable load lazy append read mixed ycsb reopen killed heap space compaction")
	who := flag.String("peers", "", "regular expression of the peers to run beside annals and the floor")
	runs := flag.String("runs", "runs", "the annals store that keeps the results; empty: keep nothing")
	resume := flag.String("resume", "", "go on with this run, which was interrupted: a name of annals runs list")
	charts := flag.String("charts", "results", "the directory for table and charts; empty: print only")
	flag.IntVar(&h.rounds, "rounds", 5, "rounds; figures are medians")
	flag.IntVar(&h.Value, "value", 100, "bytes of a value")
	flag.StringVar(&h.dir, "dir", "", "where to work (default: a temporary directory)")
	series := flag.Bool("series", false, "only how a log of samples behaves as it grows to 20 million of them: 5 GB of disk, some minutes")
	flag.Parse()
	if *series {
		return reportSeries(ctx, h.dir, *charts)
	}
	h.Keys, h.For = 1_000_000, time.Second
	switch {
	case *quick:
		h.Keys, h.For, h.rounds = 100_000, 150*time.Millisecond, min(h.rounds, 3)
	case *large:
		h.Keys, h.For = 10_000_000, 2*time.Second
	}
	if h.only, err = regexp.Compile(*only); err != nil {
		return err
	}
	if h.peers, err = regexp.Compile(*who); err != nil {
		return err
	}
	if h.dir, err = os.MkdirTemp(h.dir, "annals-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(h.dir)
	begun := time.Now()
	if *runs != "" {
		db, err := annals.Open(*runs, nil)
		if err != nil {
			return err
		}
		defer db.Close() // nothing recorded depends on it
		if err := h.keep(db, *resume, begun); err != nil {
			return err
		}
	}
	if err := h.run(ctx); err != nil {
		return err
	}
	rep := newReport(&h, begun)
	rep.print(os.Stdout)
	if *charts == "" {
		return nil
	}
	return rep.draw(*charts)
}

func (h *harness) run(ctx context.Context) error {
	for _, s := range h.steps() {
		fmt.Fprintf(os.Stderr, "\r\x1b[Kround %d of %d: %s, %s", s.round, h.rounds, s.group.name, s.contestant)
		if err := h.step(ctx, &s); err != nil {
			return fmt.Errorf("%s, %s: %w", s.group.name, s.contestant, err)
		}
	}
	fmt.Fprint(os.Stderr, "\r\x1b[K")
	return nil
}

// steps is what is to be measured, in turns.
func (h *harness) steps() (all []step) {
	for round := 1; round <= h.rounds; round++ {
		for _, g := range groups() {
			if !h.only.MatchString(g.name) {
				continue
			}
			for _, name := range g.contestants {
				if name == "annals" || name == "floor" || h.peers.MatchString(name) {
					all = append(all, step{round, &g, name})
				}
			}
		}
	}
	return all
}

// one has a process do one group of workloads on one contestant.
func (h *harness) one(ctx context.Context, round int, g *group, name string) error {
	t := task{scale: h.scale, Group: g.name, Contestant: name, Dir: filepath.Join(h.dir, "work"), Data: filepath.Join(h.dir, "data "+filepath.Base(name))}
	switch g.name {
	case "read", "mixed", "ycsb", "reopen":
		if name != "floor" && !h.prepared[name] {
			h.prepared[name] = true
			p := t
			p.Group, p.Dir = "prepare", t.Data
			if err := h.child(ctx, round, &p, false); err != nil {
				return err
			}
		}
	case "killed":
		p := t
		p.Group = "fill"
		if err := h.child(ctx, round, &p, true); err != nil {
			return err
		}
	}
	if err := h.child(ctx, round, &t, false); err != nil {
		return err
	}
	return os.RemoveAll(t.Dir)
}

// child runs a task in a process. One that is to be killed is killed half a
// second after its first result.
func (h *harness) child(ctx context.Context, round int, t *task, kill bool) error {
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), taskEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var r result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return fmt.Errorf("%q is no result: %w", lines.Text(), err)
		}
		if kill {
			time.Sleep(500 * time.Millisecond)
			cmd.Process.Kill()
			cmd.Wait() // "killed" is what we want
			// What the dead writer has left in the cache is the disk's business: who opens
			// a log next must not wait for the end of that.
			syscall.Sync()
			return nil
		}
		r.Round = round
		h.results = append(h.results, r)
	}
	return cmd.Wait()
}
