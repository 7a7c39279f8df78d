package main

import (
	"fmt"
	"io"

	"github.com/annalsdb/annals"
	"github.com/spf13/cobra"
)

func newCompact() *cobra.Command {
	var asJSON bool
	var f storeFlags
	cmd := verb("compact DIR", "Rewrite the log without what is dead", func(cmd *cobra.Command, args []string) error {
		opts := f.options(cmd)
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
goes. It can be interrupted at any time; nothing is lost.`
	cmd.Example = `  annals compact data`
	f.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "what was done as one JSON object")
	return cmd
}

func printCompact(w io.Writer, s annals.CompactStats) {
	if s.Inputs == 0 {
		fmt.Fprintln(w, "nothing to compact")
		return
	}
	fmt.Fprintf(w, "%d segments became %d: %s became %s, %s records kept, %s left behind\n",
		s.Inputs, s.Outputs, byteCount(s.Before), byteCount(s.After), count(s.Kept), count(s.Dropped))
}
