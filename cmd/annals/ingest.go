package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/replace"
	"github.com/spf13/cobra"
)

// ingestFlags are the flags of ingest.
type ingestFlags struct {
	inputFlags
	follow bool
	poll   time.Duration
	asJSON bool
}

func newIngest() *cobra.Command {
	var f ingestFlags
	cmd := verb("ingest DIR SPOOL", "Take in items that other programs drop in a directory, each exactly once",
		func(cmd *cobra.Command, args []string) error { return runIngest(cmd, args[0], args[1], &f) })
	cmd.Long = `Ingest takes items out of the directory SPOOL into the store. An item is a file of ops as
annals load reads them, one JSON object a line. All of an item is one commit, and each item is
ingested exactly once, also when ingest is killed at any moment.

A program drops an item in three steps: it writes a file whose name ends in .tmp or begins with
a dot, syncs it, and renames it to a name that does neither. Items are taken in the order of
their names; one that is dropped under the name of another that was taken already is a new one.
Directories, links and pipes are no items: each is told once and stays.
A bad item is moved to SPOOL/rejected, and beside it
NAME.reason says what is wrong; nothing of it is applied.

One process at a time takes items from a spool. The status is 1 if items were rejected and
--follow was not given. Without room on the disk --follow waits until there is some.`
	cmd.Example = `  annals ingest data spool
  annals ingest data spool --follow`
	f.register(cmd)
	cmd.Flags().BoolVar(&f.follow, "follow", false, "go on and wait for more, until Ctrl-C or SIGTERM")
	cmd.Flags().DurationVar(&f.poll, "poll", 200*time.Millisecond, "with --follow: how often to look for new items")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print what was done as one JSON object at the end")
	return cmd
}

func runIngest(cmd *cobra.Command, dir, spool string, f *ingestFlags) error {
	if f.poll < time.Millisecond {
		return usageError(cmd, errors.New("--poll must be at least 1ms"))
	}
	if err := checkSpool(spool); err != nil {
		return err
	}
	var report *ingestReport // nil until the spool is open
	err := withStore(dir, f.options(cmd), func(store *annals.Store) (err error) {
		in := &intake{store: store, fsys: replace.OS, spool: spool, maxValue: int(f.maxValue), warn: func(format string, args ...any) {
			fmt.Fprintf(cmd.ErrOrStderr(), "annals: "+format+"\n", args...)
		}}
		if err := in.open(); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, in.close()) }()
		defer serving(cmd.Context())()
		report = &in.report
		return in.run(cmd.Context(), f.follow, f.poll)
	})
	if report == nil {
		return err
	}
	return tellIngest(cmd, spool, report, f, err)
}

// checkSpool refuses what is no directory, before a store is made.
func checkSpool(spool string) error {
	const hint = "SPOOL is a directory that the producers and annals can write to; make it first"
	info, err := os.Stat(spool)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%q is no directory", spool)
	}
	if err != nil {
		return withHint(err, hint)
	}
	return nil
}

// tellIngest says what was done, and makes it the answer.
func tellIngest(cmd *cobra.Command, spool string, r *ingestReport, f *ingestFlags, err error) error {
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s items with %s records ingested; %s rejected\n",
		printable(spool), count(r.Items), count(r.Records), count(r.Rejected))
	if err == nil && f.asJSON {
		err = printJSON(cmd, r)
	}
	switch {
	case err != nil || f.follow:
		return err
	case r.Stuck > 0:
		return fmt.Errorf("%d items could not be taken", r.Stuck)
	case r.Rejected > 0:
		return answerNo("rejected %d items; the reasons are in %q", r.Rejected, spool+string(os.PathSeparator)+rejectedDir)
	}
	return nil
}

// run ingests what is there, and with follow also what comes until ctx ends.
func (in *intake) run(ctx context.Context, follow bool, poll time.Duration) error {
	full := false
	for {
		if ctx.Err() != nil {
			if follow {
				return nil
			}
			return ctx.Err()
		}
		n, err := in.round()
		wait := time.Duration(0)
		switch {
		case follow && isFull(err):
			if !full {
				in.warn("the disk is full, nothing is ingested until there is room: %s", failureText(err))
			}
			full, wait = true, max(poll, time.Second)
		case err != nil:
			return err
		case n > 0 && full:
			full = false
			in.warn("there is room again")
		case n > 0:
		case !follow:
			return nil
		default:
			wait = poll
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}
