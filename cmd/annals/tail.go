package main

import (
	"errors"
	"fmt"

	"github.com/annalsdb/annals"
	"github.com/spf13/cobra"
)

// tailFlags are the flags of tail.
type tailFlags struct {
	follow bool
	from   uint64
	last   uint64
	damage damageFlag
}

func newTail() *cobra.Command {
	var f tailFlags
	cmd := verb("tail DIR", "Print records in the order in which they were written, also as they come",
		func(cmd *cobra.Command, args []string) error { return runTail(cmd, args[0], &f) })
	cmd.Long = `Tail prints each record once, in order, as the log spells it, once it is durable. With
--follow it goes on with what comes, also from another process, until Ctrl-C. To go on
where it stopped, give --from the last sequence number plus 1.`
	cmd.Example = `  annals tail data --last 10
  annals tail data --follow
  annals tail data --from 8193 | annals load copy`
	cmd.Flags().BoolVarP(&f.follow, "follow", "f", false, "go on with what comes")
	cmd.Flags().Uint64Var(&f.from, "from", 0, "the sequence number to begin with; 0 is the oldest that is left")
	cmd.Flags().Uint64VarP(&f.last, "last", "n", 0, "begin so many records before the end")
	f.damage.register(cmd)
	cmd.MarkFlagsMutuallyExclusive("from", "last")
	return cmd
}

func runTail(cmd *cobra.Command, dir string, f *tailFlags) error {
	return f.damage.withReader(cmd, dir, func(reader *annals.Reader) error {
		stats := reader.Stats()
		from, end := f.from, stats.Durable
		if cmd.Flags().Changed("last") {
			from = max(end-min(f.last, end)+1, stats.History)
		} else if from == 0 {
			from = stats.History
		}
		if from == end+1 && !f.follow {
			return nil // nothing is there yet, and waiting for it was not asked for
		}
		if from > end+1 {
			return fmt.Errorf("%w: --from is %d, the last record is %d", annals.ErrAhead, from, end)
		}
		out := newOutput(cmd)
		return out.closing(writeRecords(cmd, out, reader, from, end, f))
	})
}

// writeRecords writes the records from one sequence number to another, and with
// --follow what comes behind.
func writeRecords(cmd *cobra.Command, out *output, reader *annals.Reader, from, end uint64, f *tailFlags) error {
	ctx := cmd.Context()
	for record, err := range reader.Watch(ctx, from) {
		if err != nil {
			if f.follow && ctx.Err() != nil {
				return nil // Ctrl-C is how following ends
			}
			if !f.damage.passes(err) {
				return err
			}
			var lost *annals.CorruptError
			if errors.As(err, &lost) && lost.LastSeq >= end && !f.follow {
				return nil
			}
			continue
		}
		if err := out.object(record.AppendJSON); err != nil {
			return err
		}
		if record.Seq < end {
			continue
		}
		if !f.follow {
			return nil
		}
		// Everything that was there is written; from now on somebody waits for
		// each commit.
		if !record.More {
			if err := out.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}
