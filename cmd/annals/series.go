package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/annalsdb/annals"
	"github.com/spf13/cobra"
)

func newSeries() *cobra.Command {
	var asJSON bool
	cmd := verb("series DIR", "List the series", func(cmd *cobra.Command, args []string) error {
		return withReader(args[0], func(reader *annals.Reader) error {
			out := newOutput(cmd)
			list := listSeries
			if asJSON {
				list = listSeriesJSON
			}
			return out.closing(list(out, reader))
		})
	})
	cmd.Example = `  annals series data
  annals series data --json | jq -r .name`
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line instead of a table")
	return cmd
}

func listSeries(out *output, reader *annals.Reader) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SERIES\tSAMPLES\tFIRST\tLAST\tSEQ\tBYTES")
	for info, err := range reader.Series() {
		if err != nil {
			return err
		}
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%d-%d\t%s\n", printable(info.Name), info.Samples,
			info.First.Local().Format(time.DateTime), info.Last.Local().Format(time.DateTime),
			info.FirstSeq, info.LastSeq, byteCount(info.Bytes))
	}
	return table.Flush()
}

// listSeriesJSON spells times as the log does, in Unix seconds.
func listSeriesJSON(out *output, reader *annals.Reader) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	for info, err := range reader.Series() {
		if err != nil {
			return err
		}
		err = enc.Encode(struct {
			Name     string      `json:"name"`
			Samples  uint64      `json:"samples"`
			FirstSeq uint64      `json:"first_seq"`
			LastSeq  uint64      `json:"last_seq"`
			First    json.Number `json:"first"`
			Last     json.Number `json:"last"`
			Bytes    int64       `json:"bytes"`
		}{info.Name, info.Samples, info.FirstSeq, info.LastSeq, unixSeconds(info.First), unixSeconds(info.Last), info.Bytes})
		if err != nil {
			return err
		}
	}
	return nil
}
