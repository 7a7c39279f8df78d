package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/annalsdb/annals"
	"github.com/spf13/cobra"
)

func newStats() *cobra.Command {
	var asJSON bool
	cmd := verb("stats DIR", "Show what a store holds", func(cmd *cobra.Command, args []string) error {
		return withReader(args[0], func(reader *annals.Reader) error {
			stats := reader.Stats()
			return writeReport(cmd, asJSON, stats, func(w io.Writer) { printStats(w, stats) })
		})
	})
	cmd.Example = `  annals stats data
  annals stats data --json | jq .durable`
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object instead of a table")
	return cmd
}

func printStats(w io.Writer, s annals.Stats) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(table, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("directory", "%s", printable(s.Dir))
	row("store", "%s", s.Store)
	row("keys", "%s", count(s.Keys))
	row("series", "%s with %s samples", count(s.Series), count(s.Samples))
	row("last record", "%d", s.LastSeq)
	row("durable up to", "%d", s.Durable)
	row("history from", "%d", s.History)
	row("clock", "%s", s.Clock.Local().Format(time.RFC3339))
	row("size", "%s, of which %s (%.0f %%) alive", byteCount(s.Bytes), byteCount(s.LiveBytes), 100*s.LiveRatio)
	row("segments", "%s", count(len(s.Segments)))
	if s.Failed != "" {
		row("failed", "%s", plain(s.Failed))
	}
	for _, damage := range s.Damage {
		row("damage", "%s", plain(damage))
	}
	table.Flush()
	if len(s.Segments) == 0 {
		return
	}
	fmt.Fprintln(w)
	table = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "segment\tfirst\tlast\trecords\tbytes\talive\t")
	for _, seg := range s.Segments {
		state := fmt.Sprintf("%.0f %%", 100*float64(seg.LiveBytes)/float64(max(seg.Bytes, 1)))
		if seg.Open {
			state = "open"
		}
		fmt.Fprintf(table, "%d\t%d\t%d\t%s\t%s\t%s\t\n", seg.Segment, seg.First, seg.Last,
			count(seg.Records), byteCount(seg.Bytes), state)
	}
	table.Flush()
}
