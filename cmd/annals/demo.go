package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/annalsdb/annals"
	"github.com/guptarohit/asciigraph"
	"github.com/spf13/cobra"
)

// killSeries is where the writer that demo kills puts its samples.
const killSeries = "demo.kill"

func newDemo() *cobra.Command {
	var duration time.Duration
	cmd := verb("demo [DIR]", "Record this machine, kill a writer, and show that nothing is lost",
		func(cmd *cobra.Command, args []string) error {
			dir := "demo"
			if len(args) > 0 {
				dir = args[0]
			}
			return explain(runDemo(cmd, dir, duration), dir)
		})
	cmd.Long = `Demo records real measurements of this machine and draws them, then starts a second
process that writes as fast as it can and tells what is durable, kills it with SIGKILL in
the middle, opens the store again, and compares what is there with what was acknowledged.
The status is 1 if anything acknowledged is missing. DIR is "demo" unless given; if it is
a store already, demo goes on in it.`
	cmd.Example = `  annals demo
  annals demo demo --for 3s`
	cmd.Flags().DurationVar(&duration, "for", 10*time.Second, "how long to record before the kill")
	return cmd
}

// demo is one run of it.
type demo struct {
	cmd *cobra.Command
	ctx context.Context
	dir string
	run string // marks the samples of this run
	out io.Writer
}

func runDemo(cmd *cobra.Command, dir string, duration time.Duration) error {
	d := &demo{
		cmd: cmd, ctx: cmd.Context(), dir: dir, out: pipeWriter{stdout(cmd)},
		run: time.Now().UTC().Format("20060102T150405.000000"),
	}
	before, err := d.record(duration)
	if err != nil {
		return err
	}
	writer, err := d.killWriter()
	if err != nil {
		return err
	}
	if err := d.check(before, writer); err != nil {
		return err
	}
	return d.showFiles()
}

func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.out, format+"\n", args...)
}

// record records for a while, shows the values as they come and a chart at the
// end, and returns the last sequence number.
func (d *demo) record(duration time.Duration) (last uint64, err error) {
	err = withStore(d.dir, &annals.Options{Logger: logger(d.cmd)}, func(store *annals.Store) error {
		begin := store.Stats().LastSeq
		if begin == 0 {
			d.say("1. A new store in %q. Recording this machine for %s, four times a second:", d.dir, duration)
		} else {
			d.say("1. %q is a store already, with records up to %d: going on in it.\n   Recording this machine for %s, four times a second:", d.dir, begin, duration)
		}
		ctx, cancel := context.WithTimeout(d.ctx, duration+100*time.Millisecond)
		defer cancel()
		r := recorder{
			store: store, beats: []*beat{{250 * time.Millisecond, machineSources()}},
			warn: func(format string, args ...any) { fmt.Fprintf(d.cmd.ErrOrStderr(), "annals: "+format+"\n", args...) },
			onTick: func(t tick) {
				if t.n%4 == 0 {
					d.say("   %s", describe(t))
				}
			},
		}
		if err := r.run(ctx); err != nil {
			return err
		}
		last = store.Stats().LastSeq
		if err := d.ctx.Err(); err != nil {
			return err
		}
		return d.chart(store, begin+1)
	})
	return last, err
}

// chart draws the load that was recorded from a sequence number on, as read back
// from the store.
func (d *demo) chart(store *annals.Store, from uint64) error {
	var busy []float64
	for sample, err := range store.Samples("cpu", annals.Window{FromSeq: from}) {
		if err != nil {
			return err
		}
		var m cpuMeasurement
		if err := json.Unmarshal(sample.Value, &m); err != nil {
			return fmt.Errorf("sample %d: %w", sample.Seq, err)
		}
		busy = append(busy, m.Busy)
	}
	if len(busy) == 0 {
		return nil // a machine that does not tell its CPU time, and has been warned about
	}
	d.say("\n%s\n", asciigraph.Plot(busy, asciigraph.Height(8), asciigraph.Width(60), asciigraph.LowerBound(0), asciigraph.UpperBound(10),
		asciigraph.Precision(0), asciigraph.Caption("CPU load in percent, read back from the series \"cpu\"")))
	return nil
}

// killedWriter is what is known of the writer that was killed.
type killedWriter struct {
	submitted int      // samples written to its standard input
	acked     []uint64 // the sequence numbers that it printed, in the order of the samples
}

// killWriter lets a second process write, and kills it in the middle.
func (d *demo) killWriter() (*killedWriter, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	child := exec.CommandContext(d.ctx, exe, "load", d.dir, "--ack")
	var complaint bytes.Buffer
	child.Stderr = &complaint
	stdin, err := child.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := child.Start(); err != nil {
		return nil, err
	}
	d.say("2. Process %d now writes as fast as it can, and prints the number of each sample that is durable:\n   annals load %s --ack", child.Process.Pid, d.dir)
	submitted := make(chan int)
	go func() { submitted <- d.feed(stdin) }()
	timer := time.AfterFunc(time.Second+rand.N(time.Second), func() { child.Process.Kill() })
	w := &killedWriter{acked: readAcks(stdout)}
	timer.Stop()
	stdin.Close()
	w.submitted = <-submitted
	err = child.Wait()
	switch {
	case d.ctx.Err() != nil:
		return nil, d.ctx.Err()
	case complaint.Len() > 0 || len(w.acked) == 0:
		return nil, fmt.Errorf("the writer acknowledged %d samples and ended: %v: %s", len(w.acked), err, complaint.String())
	}
	d.say("   SIGKILL: it had acknowledged %s samples; %s more were on their way to it.\n",
		count(len(w.acked)), count(w.submitted-len(w.acked)))
	return w, nil
}

// value is the n-th sample of the writer.
func (d *demo) value(n int) string { return fmt.Sprintf(`{"run":%q,"n":%d}`, d.run, n) }

// feed writes samples until nobody reads them any more, and returns how many.
func (d *demo) feed(stdin io.Writer) int {
	w := bufio.NewWriter(stdin)
	for n := 0; ; n++ {
		if _, err := fmt.Fprintf(w, `{"ser":%q,"val":%s}`+"\n", killSeries, d.value(n)); err != nil {
			return n
		}
	}
}

// readAcks reads sequence numbers to the end. A last line without its newline was
// cut off by the kill and acknowledges nothing.
func readAcks(stdout io.Reader) (acked []uint64) {
	r := bufio.NewReader(stdout)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return acked
		}
		seq, err := strconv.ParseUint(strings.TrimSuffix(line, "\n"), 10, 64)
		if err != nil {
			return acked
		}
		acked = append(acked, seq)
	}
}

// check opens the store again and compares it with what was acknowledged.
func (d *demo) check(before uint64, w *killedWriter) error {
	found, more, bad := 0, 0, 0
	err := withStore(d.dir, nil, func(store *annals.Store) error {
		d.say("3. Opened again: %s.", store.Recovery())
		next := 0
		for sample, err := range store.Samples(killSeries, annals.Window{FromSeq: before + 1}) {
			if err != nil {
				return err
			}
			// The samples must be the first ones submitted, without a hole.
			switch right := string(sample.Value) == d.value(next); {
			case !right:
				bad++
			case next >= len(w.acked):
				more++
			case sample.Seq == w.acked[next]:
				found++
			}
			next++
		}
		return nil
	})
	if err != nil {
		return err
	}
	report, err := annals.Verify(d.ctx, d.dir, nil)
	if err != nil {
		return err
	}
	printVerify(d.out, report)
	lost := len(w.acked) - found
	d.say("   acknowledged %s, found %s and %s more that were in flight; lost %s\n",
		count(len(w.acked)), count(found), count(more), count(lost))
	if lost > 0 || bad > 0 || more > w.submitted-len(w.acked) || !report.OK() {
		return answerNo("the store in %q did not keep its promise: %d lost, %d wrong, %d findings of damage", d.dir, lost, bad, len(report.Problems))
	}
	return nil
}

// showFiles shows that the files are text.
func (d *demo) showFiles() error {
	logs, err := filepath.Glob(filepath.Join(d.dir, "*.log"))
	if err != nil || len(logs) == 0 {
		return errors.Join(errors.New("no log was found"), err)
	}
	first := logs[0]
	d.say("4. The store is text. %s begins with", first)
	f, err := os.Open(first)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := newLineReader(f)
	for range 4 {
		line, err := lines.next()
		if err != nil {
			break // a short log
		}
		d.say("   %s", line)
	}
	d.say("   Look at it with\n"+
		"   cat %[1]s\n"+
		"   grep -h '\"ser\":\"load\"' %[2]s | tail -n 3\n"+
		"   annals samples %[3]s load --since 1m\n"+
		"   annals stats %[3]s", first, filepath.Join(d.dir, "*.log"), d.dir)
	return nil
}
