package main

import (
	"fmt"
	"io"

	"github.com/annalsdb/annals"
	"github.com/spf13/cobra"
)

func newVerify() *cobra.Command {
	var asJSON bool
	cmd := verb("verify DIR", "Read everything and report all damage", func(cmd *cobra.Command, args []string) error {
		bar := newProgress(cmd, "verifying")
		report, err := annals.Verify(cmd.Context(), args[0], bar.update)
		bar.end()
		if err != nil {
			return err
		}
		if err := writeReport(cmd, asJSON, report, func(w io.Writer) { printVerify(w, report) }); err != nil {
			return err
		}
		if !report.OK() {
			return withHint(answerNo("%q is damaged: %s", args[0], findings(len(report.Problems))),
				"annals repair %q NEWDIR saves everything else", args[0])
		}
		return nil
	})
	cmd.Long = `Verify reads every line and checks it. It changes nothing and takes no lock, so it can
run beside a writer. The status is 1 if it finds damage. An unfinished end, as a crash
leaves it, is reported and is no damage.`
	cmd.Example = `  annals verify data
  annals verify data --json | jq '.problems[]'`
	cmd.Flags().BoolVar(&asJSON, "json", false, "the report as one JSON object")
	return cmd
}

func printVerify(w io.Writer, r annals.Report) {
	fmt.Fprintf(w, "%s: %s segments, %s records up to %d, %s\n", printable(r.Dir),
		count(r.Segments), count(r.Records), r.LastSeq, byteCount(r.Bytes))
	for _, problem := range r.Problems {
		fmt.Fprintf(w, "damage: %s\n", plain(problem.Error()))
	}
	if r.Tail != nil {
		fmt.Fprintf(w, "unfinished end: %s in %s from offset %d (%s); nothing acknowledged, the next writer sets it aside\n",
			byteCount(r.Tail.Bytes), printable(r.Tail.Path), r.Tail.Offset, r.Tail.Reason)
	}
	for _, path := range r.Leftover {
		fmt.Fprintf(w, "leftover: %q; the next writer removes it\n", path)
	}
	if r.OK() {
		fmt.Fprintln(w, "no damage")
	}
}

// writeReport writes a report to standard output, as JSON or as print does.
func writeReport(cmd *cobra.Command, asJSON bool, report any, print func(io.Writer)) error {
	if asJSON {
		return printJSON(cmd, report)
	}
	out := newOutput(cmd)
	print(out)
	return out.Flush()
}

func findings(n int) string {
	if n == 1 {
		return "1 finding"
	}
	return count(n) + " findings"
}
