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
		return writeReport(cmd, asJSON, report, func(w io.Writer) { printRepair(w, args[1], report) })
	})
	cmd.Long = `Repair writes a new store to DEST with every line of DIR that is good by its own
checksum, and lists what is lost. It changes nothing in DIR. It also takes lines that
were edited by hand and given a new checksum, and a store whose MANIFEST is gone.`
	cmd.Example = `  annals repair data data.repaired
  annals verify data.repaired`
	cmd.Flags().BoolVar(&asJSON, "json", false, "the report as one JSON object")
	return cmd
}

func printRepair(w io.Writer, dest string, r annals.RepairReport) {
	fmt.Fprintf(w, "%s: saved %s records of %s segments\n", printable(dest), count(r.Records), count(r.Segments))
	for _, lost := range r.Lost {
		fmt.Fprintf(w, "lost: %s\n", plain(lost.Error()))
	}
	if len(r.Lost) == 0 {
		fmt.Fprintln(w, "nothing is lost")
	}
}
