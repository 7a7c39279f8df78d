package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/replace"
	"github.com/spf13/cobra"
)

func newRepair() *cobra.Command {
	var asJSON bool
	cmd := verb("repair DIR DEST", "Save what is good of a damaged store into a new one", func(cmd *cobra.Command, args []string) error {
		release, err := keepWritersOut(args[0])
		if err != nil {
			return err
		}
		defer release()
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
numbers tells where that may be so. A store that a process is writing is refused, and no writer
can begin meanwhile.`
	cmd.Example = `  annals repair data data.repaired
  annals repair data data.repaired --json | jq '.lost[]'
  annals verify data.repaired`
	cmd.Flags().BoolVar(&asJSON, "json", false, "the report as one JSON object")
	return cmd
}

// keepWritersOut fails if a process is writing the store, and until release is called
// no writer begins: a shared lock on LOCK, which changes nothing, is in its way. Where LOCK
// is missing or can't be opened or locked, nobody can be asked, and nothing is held.
func keepWritersOut(dir string) (release func(), err error) {
	release = func() {}
	f, err := replace.OS.OpenFile(filepath.Join(dir, "LOCK"), os.O_RDONLY, 0)
	if err != nil {
		return release, nil
	}
	if err := f.Lock(false, false); errors.Is(err, replace.ErrLocked) {
		pid := make([]byte, 32)
		n, _ := f.ReadAt(pid, 0)
		f.Close() // it was only read
		holder, _, _ := strings.Cut(string(pid[:n]), "\n")
		return release, withHint(fmt.Errorf("%w: %q is held by process %s", annals.ErrLocked, dir, cmp.Or(plain(strings.TrimSpace(holder)), "unknown")),
			"end that process first; annals backup %q DEST copies a store that is being written", dir)
	}
	return func() { f.Close() }, nil
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
