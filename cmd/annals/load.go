package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/annalsdb/annals"
	"github.com/spf13/cobra"
)

// loadFlags are the flags of load and append.
type loadFlags struct {
	inputFlags
	ack bool
}

func newLoad() *cobra.Command {
	var f loadFlags
	cmd := verb("load DIR [FILE]", "Apply ops from standard input or a file, one JSON object a line",
		func(cmd *cobra.Command, args []string) error { return runLoad(cmd, args, &f) })
	cmd.Long = `Load applies ops in the order in which they come, one a line:

  {"key":K,"val":V}     gives the key K the value V, any JSON, kept byte for byte
  {"key":K,"txt":T}     the same with the text T as the value
  {"key":K,"b64":B}     the same with any bytes, in base64
  {"key":K,"del":true}  deletes the key
  {"ser":S,"val":V}     appends a sample to the series S (txt, b64 as above)

"k64" instead of "key" is a key in base64. "exp" (Unix seconds) makes a key
expire, "at" (Unix seconds) is the time of a sample. Lines with "more":true and
the line after them become true together. "seq" and "dur" are ignored, so that
load reads what scan, samples, tail and export write. Empty lines are skipped.

A line that cannot be applied ends the load with an error that gives its number;
nothing of it is applied, and everything before it is durable.`
	cmd.Example = `  annals load data ops.ndjson
  annals export old | annals load new
  generate | annals load data --ack --sync 100ms`
	f.register(cmd)
	cmd.Flags().BoolVar(&f.ack, "ack", false, "print the sequence number of each op once it is durable")
	return cmd
}

func runLoad(cmd *cobra.Command, args []string, f *loadFlags) error {
	in, size, err := openInput(cmd, args[1:])
	if err != nil {
		return err
	}
	defer in.Close()
	opts := f.options(cmd)
	return withStore(args[0], opts, func(store *annals.Store) error {
		bar := newProgress(cmd, "loading")
		defer bar.end()
		return writeThrough(cmd, store, opts.Sync, f.ack, func(ctx context.Context, p *pipeline) error {
			lines := newLineReader(interruptible(ctx, in))
			return loadLines(ctx, lines, p, int(f.maxValue), func() { bar.update(lines.end, size) })
		})
	})
}

// writeThrough runs fn with a pipeline and waits until all of it is durable. An
// error says how much that is. fn's context ends with the pipeline's first
// failure: a reader of input that may never come must hear of it.
func writeThrough(cmd *cobra.Command, store *annals.Store, sync annals.SyncPolicy, ack bool, fn func(context.Context, *pipeline) error) error {
	var acks *output
	if ack {
		acks = newOutput(cmd)
	}
	ctx, stop := context.WithCancel(cmd.Context())
	defer stop()
	p := newPipeline(store, sync, acks, stop)
	err := fn(ctx, p)
	ops, failure := p.finish()
	if failure != nil && (err == nil || errors.Is(err, errStopped) || errors.Is(err, context.Canceled)) {
		err = failure
	}
	if err != nil {
		switch ops {
		case 0:
			return fmt.Errorf("%w; nothing was written", err)
		case 1:
			return fmt.Errorf("%w; the op before that is durable", err)
		}
		return fmt.Errorf("%w; the %d ops before that are durable", err, ops)
	}
	if stats := store.Stats(); verbose(cmd) {
		fmt.Fprintf(cmd.ErrOrStderr(), "annals: %s ops, %s syncs, %.1f records a sync\n",
			count(ops), count(stats.Syncs), stats.RecordsPerSync)
	}
	return nil
}

// loadLines submits the ops of all lines.
func loadLines(ctx context.Context, lines *lineReader, p *pipeline, maxValue int, progress func()) error {
	var commit annals.Batch
	begin, size := 0, 0 // of the commit that is being gathered: its first line, its bytes
	for ctx.Err() == nil {
		line, err := lines.next()
		if err == io.EOF {
			if commit.Len() > 0 {
				return fmt.Errorf(`line %d: the commit that begins here has no end: its last line says "more"`, begin)
			}
			return nil
		}
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		o, err := parseOp(line)
		if err == nil {
			err = o.check(maxValue)
		}
		if size += len(line); err == nil && size > maxCommit {
			err = fmt.Errorf("%w: the commit from line %d on has more than 256 MiB", annals.ErrTooLarge, begin)
		}
		if err != nil {
			return lines.fail(err)
		}
		if commit.Len() == 0 {
			begin = lines.number
		}
		o.addTo(&commit)
		if o.more {
			continue
		}
		if err := p.submit(&commit); err != nil {
			return err
		}
		commit.Reset()
		size = 0
		progress()
	}
	return ctx.Err()
}

// maxCommit bounds the bytes of a commit, as the store does.
const maxCommit = 256 << 20

// openInput opens the file that args name, or standard input. The size is 0 if
// that is not known.
func openInput(cmd *cobra.Command, args []string) (in io.ReadCloser, size int64, err error) {
	var f *os.File
	if len(args) > 0 && args[0] != "-" {
		if f, err = openFile(cmd.Context(), args[0]); err != nil {
			return nil, 0, err
		}
	} else if stdin, ok := cmd.InOrStdin().(*os.File); ok {
		f = stdin
	} else {
		return io.NopCloser(cmd.InOrStdin()), 0, nil
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, 0, err
	case info.IsDir():
		return nil, 0, fmt.Errorf("%q is a directory, not a file", f.Name())
	case info.Mode().IsRegular():
		size = info.Size()
	}
	return f, size, nil
}

// openFile opens a file to read, or gives up with ctx: a named pipe waits for a writer.
func openFile(ctx context.Context, path string) (*os.File, error) {
	type opened struct {
		file *os.File
		err  error
	}
	done := make(chan opened, 1)
	go func() {
		f, err := os.Open(path)
		done <- opened{f, err}
	}()
	select {
	case o := <-done:
		return o.file, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
