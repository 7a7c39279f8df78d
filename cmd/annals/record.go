package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/replace"
	"github.com/spf13/cobra"
)

// recordFlags are the flags of record.
type recordFlags struct {
	writeFlags
	every    time.Duration
	duration time.Duration
	sources  []string // NAME or NAME=INTERVAL
	execs    []string // NAME=COMMAND
	stdin    string   // a series
	spool    string   // a directory
	queue    sizeFlag
}

func newRecord() *cobra.Command {
	var f recordFlags
	cmd := verb("record DIR", "Record this machine, commands, and standard input",
		func(cmd *cobra.Command, args []string) error { return runRecord(cmd, args[0], &f) })
	cmd.Long = `Record measures at equal intervals and appends what it finds to series:

  load, cpu, memory, disk, network   this machine, as JSON objects whose fields have their
                                     units in their names
  --exec NAME=COMMAND                what the command prints, run anew each time: one
                                     sample if all of it is JSON, else one a line
  --stdin SERIES                     each line of standard input, as it comes
  --spool SPOOL                      items that other programs drop in that directory, as
                                     annals ingest takes them

What is not JSON is text. All measurements of a moment are one commit. Without --source
it records all of this machine, unless another flag says what else to record;
--source cpu names a part of it, --source all the whole, and --source NAME=10s gives a
source, a command too, an interval of its own.

It ends with Ctrl-C, SIGTERM, SIGHUP or --for, and loses nothing that it wrote. A source that
fails, or a command that takes longer than its interval, is told once and tried again.
While the disk is full it goes on measuring: samples wait in memory, up to --queue, and
what finds no room there is counted; the series annals.record gets that number as soon as
there is room, as it does when the clock was set back. On a terminal the last line tells
how it is; --verbose tells each commit.`
	cmd.Example = `  annals record data
  annals record data --every 250ms --for 30s --verbose
  annals record data --source cpu=1s --source memory=10s --exec 'disk.free=df --output=avail / | tail -n 1'
  vmstat -n 1 | annals record data --stdin vmstat
  annals samples data cpu --since 1m | jq .val.busy_pct`
	f.register(cmd)
	return cmd
}

func (f *recordFlags) register(cmd *cobra.Command) {
	f.writeFlags.register(cmd)
	f.queue = 16 << 20
	cmd.Flags().DurationVar(&f.every, "every", time.Second, "the time between two measurements, unless --source says another")
	cmd.Flags().DurationVar(&f.duration, "for", 0, "how long to record; 0 is until Ctrl-C")
	cmd.Flags().StringArrayVar(&f.sources, "source", nil, "NAME or NAME=INTERVAL: what to record, and how often; may be given several times")
	cmd.Flags().StringArrayVar(&f.execs, "exec", nil, "NAME=COMMAND: a command whose output goes to the series NAME; may be given several times")
	cmd.Flags().StringVar(&f.stdin, "stdin", "", "the series that gets each line of standard input")
	cmd.Flags().StringVar(&f.spool, "spool", "", "a directory in which other programs drop items: see annals ingest")
	cmd.Flags().Var(&f.queue, "queue", "how much may wait in memory while the disk is full")
}

func runRecord(cmd *cobra.Command, dir string, f *recordFlags) error {
	if f.every < time.Millisecond || f.duration < 0 {
		return usageError(cmd, errors.New("--every must be at least 1ms, and --for not negative"))
	}
	if cmd.Flags().Changed("spool") && f.spool == "" {
		return usageError(cmd, errors.New("--spool is empty"))
	}
	if cmd.Flags().Changed("stdin") { // "" is a variable that was not set
		if err := checkSeries("--stdin", f.stdin); err != nil {
			return usageError(cmd, err)
		}
	}
	r, err := f.recorder()
	if err != nil {
		return usageError(cmd, err)
	}
	if err := checkSpool(f.spool); f.spool != "" && err != nil {
		return err
	}
	if f.stdin != "" {
		in, _, err := openInput(cmd, nil)
		if err != nil {
			return err
		}
		defer in.Close()
		r.input = in
	}
	ctx := cmd.Context()
	if f.duration > 0 {
		// A little more, so that the last tick is not a matter of luck.
		timed, cancel := context.WithTimeout(ctx, f.duration+min(f.every/2, 100*time.Millisecond))
		defer cancel()
		ctx = timed
	}
	return withStore(dir, f.options(cmd), func(store *annals.Store) error {
		status := newStatus(cmd)
		defer status.end()
		r.store, r.warn, r.onTick, r.onWait = store, status.warn, status.show, status.wait
		if f.spool != "" {
			r.intake = &intake{store: store, fsys: replace.OS, spool: f.spool, maxValue: 16 << 20, warn: status.warn}
			if err := r.intake.open(); err != nil {
				return err
			}
			defer r.intake.close()
		}
		defer serving(ctx)()
		return r.run(ctx)
	})
}

// recorder makes a recorder of what the flags name.
func (f *recordFlags) recorder() (*recorder, error) {
	r := &recorder{queueLimit: int(f.queue), series: f.stdin}
	for _, arg := range f.execs {
		name, line, found := strings.Cut(arg, "=")
		if !found || strings.TrimSpace(line) == "" {
			return nil, fmt.Errorf("--exec must be NAME=COMMAND, not %q", arg)
		}
		if err := checkSeries("--exec", name); err != nil {
			return nil, err
		}
		if name == "all" {
			return nil, errors.New("--exec: all means every source of this machine; take another name")
		}
		r.commands = append(r.commands, &execSource{series: name, line: line, every: f.every})
	}
	machine, err := f.intervals(r.commands)
	if err != nil {
		return nil, err
	}
	used := map[string]bool{f.stdin: f.stdin != ""}
	for _, c := range r.commands {
		if _, ok := machine[c.series]; ok || used[c.series] {
			return nil, fmt.Errorf("two sources have the name %q", c.series)
		}
		used[c.series] = true
	}
	for _, s := range machineSources() {
		if every, ok := machine[s.series]; ok {
			if used[s.series] {
				return nil, fmt.Errorf("two sources have the name %q", s.series)
			}
			r.addSource(every, s)
		}
	}
	return r, nil
}

// intervals reads --source: the intervals of this machine's sources that are to be
// recorded. Those of commands it gives to the commands.
func (f *recordFlags) intervals(commands []*execSource) (machine map[string]time.Duration, err error) {
	all := map[string]time.Duration{}
	for _, s := range machineSources() {
		all[s.series] = f.every
	}
	machine = map[string]time.Duration{}
	for _, arg := range f.sources {
		name, interval, given := strings.Cut(arg, "=")
		every := f.every
		if given {
			if every, err = time.ParseDuration(interval); err != nil || every < time.Millisecond {
				return nil, fmt.Errorf("--source %s: the interval must be a time of at least 1ms, such as 10s, not %q", name, interval)
			}
		}
		i := slices.IndexFunc(commands, func(c *execSource) bool { return c.series == name })
		switch _, known := all[name]; {
		case name == "all":
			for name := range all {
				machine[name] = every
			}
		case known:
			machine[name] = every
		case i >= 0:
			commands[i].every = every
		default:
			return nil, fmt.Errorf("--source %q is none of all, %s, nor the name of an --exec", name, strings.Join(slices.Sorted(maps.Keys(all)), ", "))
		}
	}
	if len(f.sources) == 0 && len(f.execs) == 0 && f.stdin == "" && f.spool == "" {
		return all, nil
	}
	return machine, nil
}

func checkSeries(option, name string) error {
	if name == "" || len(name) > 255 || !utf8.ValidString(name) {
		return fmt.Errorf("%s: the name of a series is UTF-8 of 1 to 255 bytes, not %.300q", option, name)
	}
	return nil
}
