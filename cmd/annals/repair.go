package main

import (
	"fmt"
	"io"

	"github.com/annalsdb/annals"
	"github.com/spf13/cobra"
)

func newRepair() *cobra.Command {
	var asJSON bool
	cmd := verb("repair DIR DEST", "Save what is good of a damaged store into a new one", func(cmd *cobra.Command, args []string) error {
		bar := newProgress(cmd, "repairing")
		report, err := annals.Repair(cmd.Context(), args[0], args[1], bar.update)
		bar.end()
		if err != nil {
			return err
		}
		if err := writeReport(cmd, asJSON, report, func(w io.Writer) { printRepair(w, args[1], report) }); err != nil {
			return err
		}
		if !report.OK() {
			return withHint(answerNo("%q holds what is left of %q; losses listed: %d", args[1], args[0], len(report.Lost)),
				"use %q from now on, and keep %q, or a backup of it, until nothing of it is missed", args[1], args[0])
		}
		return nil
	})
	cmd.Long = `Repair writes a new store to DEST with every line of DIR that is good by its own
checksum, and lists what is lost: the status is 1 if that is not nothing. It changes
nothing in DIR. It also takes lines that were edited by hand and given a new
checksum, and a store whose MANIFEST is gone. Bytes that are no good line are kept
in DEST/quarantine.

Where a delete is lost the key has its older value again; the list of lost sequence
numbers tells where that may be so. Nothing should write to DIR meanwhile.`
	cmd.Example = `  annals repair data data.repaired
  annals repair data data.repaired --json | jq '.lost[]'
  annals verify data.repaired`
	cmd.Flags().BoolVar(&asJSON, "json", false, "the report as one JSON object")
	return cmd
}

func printRepair(w io.Writer, dest string, r annals.RepairReport) {
	fmt.Fprintf(w, "%s: saved %s records of %s segments\n", printable(dest), count(r.Records), count(r.Segments))
	for _, lost := range r.Lost {
		fmt.Fprintf(w, "lost: %s\n", plain(lost.Error()))
	}
	for _, damage := range r.Damage {
		fmt.Fprintf(w, "damage that cost no record: %v\n", damage)
	}
	for _, p := range r.Partial {
		fmt.Fprintf(w, "not whole: the commit with records %d to %d, which are saved\n", p.First, p.Last)
	}
	for _, l := range r.LeftOut {
		fmt.Fprintf(w, "left out: %q: %s\n", l.Path, l.Reason)
	}
	for _, k := range r.Kept {
		fmt.Fprintf(w, "kept: %s that are no good lines, in %q\n", byteCount(k.Bytes), k.Path)
	}
	if r.OK() {
		fmt.Fprintln(w, "nothing is lost")
	}
}
