package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode"
	"unicode/utf8"

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

func newOutput(cmd *cobra.Command) *output { return newOutputTo(stdout(cmd)) }

func newOutputTo(w io.Writer) *output {
	return &output{Writer: bufio.NewWriterSize(pipeWriter{w}, 64<<10)}
}

// stdout is standard output as it is, or guarded where it is a terminal.
func stdout(cmd *cobra.Command) io.Writer {
	if w := cmd.OutOrStdout(); !isTerminal(w) {
		return w
	}
	return &terminalWriter{w: cmd.OutOrStdout()}
}

// terminalWriter spells what a terminal would act upon as JSON spells it, \u001b for
// one: keys and values are anybody's, and may hold what moves the cursor, sets the
// title or hides text. A program that reads the output gets the bytes themselves.
type terminalWriter struct {
	w    io.Writer
	text []byte // as it is to be written, for the next Write to use again
	rest []byte // the first bytes of a character whose others have not come yet
}

func (t *terminalWriter) Write(p []byte) (int, error) {
	in := append(t.rest, p...)
	t.text = t.text[:0]
	for len(in) > 0 && utf8.FullRune(in) {
		r, n := utf8.DecodeRune(in)
		switch {
		case r == utf8.RuneError && n == 1:
			t.text = fmt.Appendf(t.text, `\x%02x`, in[0])
		case r != '\n' && r != '\t' && unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r):
			t.text = fmt.Appendf(t.text, `\u%04x`, r)
		default:
			t.text = append(t.text, in[:n]...)
		}
		in = in[n:]
	}
	t.rest = append([]byte(nil), in...)
	if _, err := t.w.Write(t.text); err != nil {
		return 0, err
	}
	return len(p), nil
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
	w := pipeWriter{stdout(cmd)}
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
