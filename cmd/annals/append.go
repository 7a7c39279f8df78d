package main

import (
	"context"
	"io"

	"github.com/annalsdb/annals"
	"github.com/spf13/cobra"
)

func newAppend() *cobra.Command {
	var f loadFlags
	cmd := verb("append DIR SERIES", "Append each line of standard input to a series",
		func(cmd *cobra.Command, args []string) error { return runAppend(cmd, args, &f) })
	cmd.Long = `Append makes each line a sample of the series, with the time of its arrival.
A line may be any JSON; any other line is a text.`
	cmd.Example = `  vmstat 1 | annals append data vmstat
  echo '{"t":21.5}' | annals append data hall-003 --ack`
	f.register(cmd)
	cmd.Flags().BoolVar(&f.ack, "ack", false, "print the sequence number of each sample once it is durable")
	return cmd
}

func runAppend(cmd *cobra.Command, args []string, f *loadFlags) error {
	in, size, err := openInput(cmd, nil)
	if err != nil {
		return err
	}
	defer in.Close()
	opts := f.options(cmd)
	return withStore(args[0], opts, func(store *annals.Store) error {
		bar := newProgress(cmd, "appending")
		defer bar.end()
		return writeThrough(cmd, store, opts.Sync, f.ack, func(ctx context.Context, p *pipeline) error {
			lines := newLineReader(interruptible(ctx, in))
			var sample annals.Batch
			for ctx.Err() == nil {
				line, err := lines.nextSample()
				if err == io.EOF {
					return nil
				}
				if err != nil {
					return err
				}
				o := op{kind: annals.KindSample, name: args[1], value: line}
				if err := o.check(int(f.maxValue)); err != nil {
					return lines.fail(err)
				}
				o.addTo(&sample)
				if err := p.submit(&sample); err != nil {
					return err
				}
				sample.Reset()
				bar.update(lines.end, size)
			}
			return ctx.Err()
		})
	})
}
