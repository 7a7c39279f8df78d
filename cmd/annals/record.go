package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"github.com/annalsdb/annals"
	"github.com/spf13/cobra"
)

// recordFlags are the flags of record.
type recordFlags struct {
	writeFlags
	every    time.Duration
	duration time.Duration
}

func newRecord() *cobra.Command {
	var f recordFlags
	cmd := verb("record DIR", "Record this machine: load, CPU, memory, disk, network",
		func(cmd *cobra.Command, args []string) error { return runRecord(cmd, args[0], &f) })
	cmd.Long = `Record measures this machine and appends what it finds to the series load, cpu, memory,
disk and network, as JSON objects whose fields have their units in their names. All
measurements of a moment are one commit. It ends with Ctrl-C, SIGTERM or --for, and loses
nothing that it wrote. While the disk is full it goes on measuring, and says how much it
could not write.`
	cmd.Example = `  annals record data
  annals record data --every 250ms --for 30s --verbose
  annals samples data cpu --since 1m | jq .val.busy_pct`
	f.register(cmd)
	cmd.Flags().DurationVar(&f.every, "every", time.Second, "the time between two measurements")
	cmd.Flags().DurationVar(&f.duration, "for", 0, "how long to record; 0 is until Ctrl-C")
	return cmd
}

func runRecord(cmd *cobra.Command, dir string, f *recordFlags) error {
	if f.every < time.Millisecond || f.duration < 0 {
		return usageError(cmd, errors.New("--every must be at least 1ms, and --for not negative"))
	}
	ctx := cmd.Context()
	if f.duration > 0 {
		// Half a tick more, so that the last one is not a matter of luck.
		timed, cancel := context.WithTimeout(ctx, f.duration+f.every/2)
		defer cancel()
		ctx = timed
	}
	return withStore(dir, f.options(cmd), func(store *annals.Store) error {
		status := newStatus(cmd)
		defer status.end()
		r := recorder{store: store, sources: machineSources(), every: f.every, warn: cmd.ErrOrStderr(), onTick: status.show}
		return r.run(ctx)
	})
}

// A recorder asks its sources at equal intervals and writes what they say.
type recorder struct {
	store   *annals.Store
	sources []source
	every   time.Duration
	warn    io.Writer
	onTick  func(tick)

	silent  map[string]bool // sources whose failure was told
	dropped int             // ticks that found no room on the disk
}

// A tick is one moment at which everything is measured.
type tick struct {
	n            int // from 1
	at           time.Time
	measurements []measurement
	seq          uint64 // of the last sample; 0 if they could not be written
}

// run records until ctx ends, which is no error.
func (r *recorder) run(ctx context.Context) error {
	r.silent = map[string]bool{}
	r.measure(time.Now()) // gives the rates something to count from
	ticker := time.NewTicker(r.every)
	defer ticker.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if ctx.Err() != nil { // both were ready
			return nil
		}
		now := time.Now()
		batch, measurements := r.measure(now)
		if batch.Len() == 0 {
			return errors.New("none of the sources could measure anything")
		}
		seq, err := r.write(batch)
		if err != nil {
			return err
		}
		r.onTick(tick{n, now, measurements, seq})
	}
}

// measure asks all sources for a sample. One that fails is left out, and its
// error told once.
func (r *recorder) measure(now time.Time) (*annals.Batch, []measurement) {
	var batch annals.Batch
	var measurements []measurement
	for _, source := range r.sources {
		m, err := source.measure(now)
		var value []byte
		if err == nil {
			value, err = json.Marshal(m)
		}
		switch {
		case err == nil:
			batch.Append(source.series, value, annals.At(now))
			measurements = append(measurements, m)
		case !errors.Is(err, errFirst) && !r.silent[source.series]:
			r.silent[source.series] = true
			fmt.Fprintf(r.warn, "annals: no %s is recorded while this lasts: %s\n", source.series, plain(err.Error()))
		}
	}
	return &batch, measurements
}

// write makes the samples of a tick durable. A full disk is waited out: the
// recorder says so once, and again when there is room.
func (r *recorder) write(b *annals.Batch) (seq uint64, err error) {
	seq, err = r.store.Apply(b)
	switch {
	case errors.Is(err, syscall.ENOSPC) && !errors.Is(err, annals.ErrFailed):
		if r.dropped++; r.dropped == 1 {
			fmt.Fprintf(r.warn, "annals: the disk is full, nothing is recorded until there is room: %s\n", plain(err.Error()))
		}
		return 0, nil
	case err == nil && r.dropped > 0:
		fmt.Fprintf(r.warn, "annals: there is room again; %d ticks could not be recorded\n", r.dropped)
		r.dropped = 0
	}
	return seq, err
}

// status shows on standard error that the recorder runs: on a terminal one line
// that changes, with --verbose a line a tick, else nothing.
type status struct {
	w       io.Writer
	live    bool
	verbose bool
}

func newStatus(cmd *cobra.Command) *status {
	return &status{w: cmd.ErrOrStderr(), live: isTerminal(cmd.ErrOrStderr()), verbose: verbose(cmd)}
}

func (s *status) show(t tick) {
	line := describe(t)
	switch {
	case s.verbose:
		fmt.Fprintln(s.w, line)
	case s.live:
		fmt.Fprintf(s.w, "\r%s\x1b[K", line) // and clears what the last line left
	}
}

func (s *status) end() {
	if s.live && !s.verbose {
		fmt.Fprintln(s.w)
	}
}

// describe is a tick as one line of text.
func describe(t tick) string {
	parts := []string{t.at.Format(time.TimeOnly)}
	for _, m := range t.measurements {
		parts = append(parts, m.String())
	}
	if t.seq > 0 {
		parts = append(parts, fmt.Sprintf("seq %d", t.seq))
	} else {
		parts = append(parts, "not written")
	}
	return strings.Join(parts, "  ")
}
