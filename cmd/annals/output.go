package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// errReaderGone is what writing gives once nobody reads standard output.
var errReaderGone = errors.New("nobody reads the output any more")

// output is buffered standard output. Call flush before the end, and wherever
// a reader waits for the line.
type output struct {
	*bufio.Writer
	line []byte // of the last call of object, for the next to use again
}

func newOutput(cmd *cobra.Command) *output {
	return &output{Writer: bufio.NewWriterSize(pipeWriter{cmd.OutOrStdout()}, 64<<10)}
}

// object writes one JSON object and a newline; appendTo is the AppendJSON method
// of what is to be written.
func (o *output) object(appendTo func(dst []byte) []byte) error {
	o.line = append(appendTo(o.line[:0]), '\n')
	_, err := o.Write(o.line)
	return err
}

// closing flushes the output after whatever ended the verb. An error of the verb
// goes first.
func (o *output) closing(err error) error {
	if flushErr := o.Flush(); err == nil {
		return flushErr
	}
	return err
}

// pipeWriter tells a reader that is gone from other errors of standard output.
type pipeWriter struct{ w io.Writer }

func (p pipeWriter) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	switch {
	case err == nil:
		return n, nil
	case isBrokenPipe(err):
		return n, errReaderGone
	}
	return n, fmt.Errorf("standard output: %w", err)
}

// printJSON writes v as one JSON object, indented when a person will read it.
func printJSON(cmd *cobra.Command, v any) error {
	w := pipeWriter{cmd.OutOrStdout()}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	if isTerminal(cmd.OutOrStdout()) {
		enc.SetIndent("", "  ")
	}
	return enc.Encode(v)
}

// isTerminal reports whether a stream is a terminal with a person before it.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
