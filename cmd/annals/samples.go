package main

import (
	"cmp"
	"fmt"
	"time"

	"github.com/annalsdb/annals"
	"github.com/spf13/cobra"
)

func newSamples() *cobra.Command {
	var w annals.Window
	var since, until timeFlag
	var sums aggregateFlags
	var damage damageFlag
	cmd := verb("samples DIR SERIES", "Print the samples of a series", func(cmd *cobra.Command, args []string) error {
		if w.Limit < 0 {
			return usageError(cmd, fmt.Errorf("--limit must not be negative"))
		}
		if err := cmp.Or(checkSpan(since, until), sums.check(cmd, w)); err != nil {
			return usageError(cmd, err)
		}
		w.Since, w.Until = time.Time(since), time.Time(until)
		return damage.withReader(cmd, args[0], func(reader *annals.Reader) error {
			out := newOutput(cmd)
			snapshot := reader.Snapshot()
			defer snapshot.Close()
			from := damage.sampler(snapshot)
			if sums.given() {
				return out.closing(writeBuckets(cmd, out, from, args[1], w, &sums))
			}
			return out.closing(writeSamples(cmd, out, from, args[1], w))
		})
	})
	cmd.Long = `Samples prints a line {"seq":N,"ser":S,"at":T,"val":V} for each sample, in the order in
which they were appended. A time is given as 2024-11-22T14:00:00Z, in Unix seconds,
or as how long ago, such as 10m or 7d. The status is 1 if there is no such series.

With --every and --agg it prints numbers that sum up the samples of each stretch of
time, in the order of time, as samples of the same series that annals load reads;
stretches without samples are left out. A sample belongs where its time lies, however
late it came. Days and hours begin where they do in UTC. Percentiles (pN) are one of
the numbers, of many within 0.4 %. Samples without a number at --field are left out,
and counted on standard error; the status is 1 if there is no number at all.`
	cmd.Example = `  annals samples data load --since 10m
  annals samples data load --reverse --limit 1
  annals samples data cpu --since 2024-11-22T14:00:00Z --until 2024-11-22T15:00:00Z | jq .val.busy_pct
  annals samples data cpu --every 1m --agg min,max,avg,count,p99 --field val.busy_pct
  annals samples data cpu --since 24h --every 1h --field val.busy_pct --csv > cpu.csv`
	cmd.Flags().Var(&since, "since", "only samples of this time and later")
	cmd.Flags().Var(&until, "until", "only samples before this time")
	cmd.Flags().Uint64Var(&w.FromSeq, "from-seq", 0, "only this sequence number and higher ones")
	cmd.Flags().Uint64Var(&w.ToSeq, "to-seq", 0, "only this sequence number and lower ones; 0 is all")
	cmd.Flags().IntVar(&w.Limit, "limit", 0, "at most so many samples, or lines with --every; 0 is all")
	cmd.Flags().BoolVar(&w.Reverse, "reverse", false, "from the newest to the oldest")
	sums.register(cmd)
	damage.register(cmd)
	return cmd
}

// writeSamples writes the samples of one series, and tells an empty window from
// a series that does not exist.
func writeSamples(cmd *cobra.Command, out *output, from annals.Sampler, series string, w annals.Window) error {
	found := false
	for sample, err := range from.Samples(series, w) {
		if err == nil {
			err = cmd.Context().Err()
		}
		if err != nil {
			return err
		}
		found = true
		if err := out.object(sample.AppendJSON); err != nil {
			return err
		}
	}
	if found {
		return nil
	}
	return seriesExists(from, series)
}
