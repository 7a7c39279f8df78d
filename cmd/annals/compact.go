package main

import (
	"fmt"
	"io"
	"time"

	"github.com/annalsdb/annals"
	"github.com/spf13/cobra"
)

func newCompact() *cobra.Command {
	var asJSON bool
	var f storeFlags
	var keep keepFlag
	cmd := verb("compact DIR", "Rewrite the log without what is dead", func(cmd *cobra.Command, args []string) error {
		opts := f.options(cmd)
		opts.Retention = keep.retention()
		if cmd.Flags().Changed("keep") {
			opts.Compaction.Grace = time.Nanosecond // who says so now means this machine's clock
		}
		opts.Compaction.Off = true // in the background, where it would do some of the work unseen
		return withExisting(args[0], opts, func(store *annals.Store) error {
			bar := newProgress(cmd, "compacting")
			stats, err := store.Compact(cmd.Context(), bar.update)
			bar.end()
			if err != nil {
				return err
			}
			return writeReport(cmd, asJSON, stats, func(w io.Writer) { printCompact(w, stats) })
		})
	})
	cmd.Long = `Compact gives back the space of values that were replaced, deleted or have expired. A
store that is open for writing does so by itself; this does it at once and as far as it
goes. It can be interrupted at any time; nothing is lost.

With --keep it also takes samples that are beyond the limits, for good. Age is by the
time of the samples and the clock of this machine: make sure that it is right.`
	cmd.Example = `  annals compact data
  annals compact data --keep age=30d --keep audit:all`
	f.register(cmd)
	keep.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "what was done as one JSON object")
	return cmd
}

func printCompact(w io.Writer, s annals.CompactStats) {
	if s.Inputs == 0 {
		fmt.Fprintln(w, "nothing to compact")
		return
	}
	if s.Retired > 0 {
		defer fmt.Fprintf(w, "%s samples (%s) were beyond their limits; %d segments held nothing else\n", count(s.Retired), byteCount(s.RetiredBytes), s.Unlinked)
	}
	fmt.Fprintf(w, "%d segments became %d: %s became %s, %s records kept, %s left behind\n",
		s.Inputs, s.Outputs, byteCount(s.Before), byteCount(s.After), count(s.Kept), count(s.Dropped))
}
