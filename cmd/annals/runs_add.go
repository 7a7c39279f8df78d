package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/annalsdb/annals"
	"github.com/spf13/cobra"
)

type runsAddFlags struct {
	inputFlags
	config string
	more   bool
}

func newRunsAdd() *cobra.Command {
	var f runsAddFlags
	cmd := verb("add DIR NAME [FILE]", "Record benchmark results as a run",
		func(cmd *cobra.Command, args []string) error { return runRunsAdd(cmd, args, &f) })
	cmd.Long = `Add reads the output of "go test -bench", with or without -json, or JSON lines, and keeps
each result in the run NAME. A JSON line is an object with a "name": its numbers are what was
measured, their names the units; its texts are labels.

Of a file all results are kept, or none. From a pipe each one is durable as it comes, so that
of a run that is killed nothing is lost. Lines that are no results are counted on standard
error, and the first ones shown.

A run that is there already is left alone; --append adds more samples of its benchmarks, as
"go test -count" does. With --config, any JSON, only to a run with the same.`
	cmd.Example = `  go test -bench . -count 10 ./... | annals runs add data v1.4
  annals runs add data v1.3 old.txt --config '{"commit":"c0ffee"}'
  echo '{"name":"query","p99_ms":12.5,"rows/s":81000}' | annals runs add data today --append`
	f.register(cmd)
	cmd.Flags().StringVar(&f.config, "config", "", "what makes the run comparable, as JSON: it is kept with it, and --append refuses another")
	cmd.Flags().BoolVar(&f.more, "append", false, "add to a run that is there already")
	return cmd
}

func runRunsAdd(cmd *cobra.Command, args []string, f *runsAddFlags) error {
	if f.config != "" && !json.Valid([]byte(f.config)) {
		return usageError(cmd, fmt.Errorf("--config %q is not JSON", f.config))
	}
	in, size, err := openInput(cmd, args[2:])
	if err != nil {
		return err
	}
	defer in.Close()
	a := runAdder{cmd: cmd, f: f, name: args[1], lines: newLineReader(interruptible(cmd.Context(), in)), whole: size > 0}
	if a.whole {
		// All of the file is read before anything is made.
		if err := a.read(); err != nil {
			return err
		}
		if err := a.someFound(); err != nil {
			return err
		}
	}
	err = withStore(args[0], f.options(cmd), func(store *annals.Store) error {
		a.store = store
		if err := a.begin(); err != nil || a.whole {
			return cmpOr(err, a.flush)
		}
		err := a.read()
		if err == nil {
			err = a.someFound()
		}
		if errors.Is(err, context.Canceled) {
			err = fmt.Errorf("%w; what came before that is durable: %s", err, someResults(a.kept))
		}
		return err
	})
	if err == nil {
		a.tell()
	}
	return err
}

// cmpOr is err, or else that of fn.
func cmpOr(err error, fn func() error) error {
	if err != nil {
		return err
	}
	return fn()
}

// runAdder takes results into a run.
type runAdder struct {
	cmd   *cobra.Command
	f     *runsAddFlags
	name  string
	lines *lineReader
	whole bool // all of the input is kept or nothing

	store   *annals.Store
	config  json.RawMessage
	journal *annals.Journal // made with the first result
	count   map[string]int  // of the results of each benchmark

	texts   map[string]*packageText // of go test -json by package; "" without -json
	pending []foundResult           // not yet in the store
	kept    int
	odd     int // lines that are no results
}

// foundResult is a result and the name to keep it under.
type foundResult struct {
	name   string
	result json.RawMessage
}

// packageText is what a package's tests print: go test -json may cut lines, and mix
// those of several packages.
type packageText struct {
	benchText
	part string
}

// begin refuses a run that is there already, unless it is to be added to.
func (a *runAdder) begin() error {
	a.config = json.RawMessage(a.f.config)
	if a.f.config == "" {
		a.config = json.RawMessage("{}")
	}
	a.count = map[string]int{}
	run, err := annals.ReadJournal(a.store, a.name)
	if errors.Is(err, annals.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := run.Info()
	if err != nil {
		return err
	}
	if info.Done > 0 && !a.f.more {
		return withHint(fmt.Errorf("run %q is there already, with %s", a.name, someResults(info.Done)),
			"--append adds more samples to it; annals runs delete takes it away")
	}
	if a.f.config == "" {
		a.config = info.Config
	}
	for r, err := range run.Results() {
		if err != nil {
			return err
		}
		a.count[repetition.ReplaceAllString(r.Key, "")]++
	}
	return nil
}

// read reads all lines. Unless the results are to be kept together, they go to the
// store whenever none is at hand.
func (a *runAdder) read() error {
	a.texts = map[string]*packageText{}
	for a.cmd.Context().Err() == nil {
		line, err := a.lines.next()
		if err == io.EOF {
			return a.rest()
		}
		if err != nil {
			return err
		}
		a.line(line)
		if !a.whole && a.lines.r.Buffered() == 0 {
			if err := a.flush(); err != nil {
				return err
			}
		}
	}
	return a.cmd.Context().Err()
}

// rest takes what came without a newline.
func (a *runAdder) rest() error {
	for _, text := range a.texts {
		if text.part != "" {
			a.textLine(text, text.part)
		}
	}
	if a.whole {
		return nil
	}
	return a.flush()
}

func (a *runAdder) line(line []byte) {
	if object := bytes.TrimSpace(line); len(object) > 0 && object[0] == '{' {
		a.object(object)
		return
	}
	a.textLine(a.text(""), string(line))
}

func (a *runAdder) text(pkg string) *packageText {
	text := a.texts[pkg]
	if text == nil {
		text = new(packageText)
		a.texts[pkg] = text
	}
	return text
}

func (a *runAdder) textLine(text *packageText, line string) {
	m, err := text.line(line)
	if err != nil {
		a.noResult(line, err)
	}
	if m != nil {
		a.pending = append(a.pending, foundResult{m.name, m.appendJSON(nil)})
	}
}

// object takes a JSON line: an event of go test -json, a line of `runs show --json`,
// or a result.
func (a *runAdder) object(object []byte) {
	var line struct {
		Action, Package string
		Output          *string
		Key             string          `json:"key"`
		Result          json.RawMessage `json:"result"`
	}
	if !json.Valid(object) {
		a.noResult(string(object), errors.New("is not JSON"))
		return
	}
	_ = json.Unmarshal(object, &line) // fields of other types are no events
	switch {
	case line.Action != "":
		if line.Output != nil {
			a.output(line.Package, *line.Output)
		}
		return
	case line.Key != "" && line.Result != nil:
		if len(measurements(line.Key, line.Result)) == 0 {
			a.noResult(string(object), errors.New("has no numbers"))
			return
		}
		a.pending = append(a.pending, foundResult{repetition.ReplaceAllString(line.Key, ""), line.Result})
		return
	}
	m, err := fromObject("", object)
	switch {
	case err == nil && m.name == "":
		err = errors.New(`has no "name"`)
	case err == nil && len(m.values) == 0:
		err = errors.New("has no numbers")
	}
	if err != nil {
		a.noResult(string(object), err)
		return
	}
	a.pending = append(a.pending, foundResult{m.name, bytes.Clone(object)})
}

// output takes what a package has printed.
func (a *runAdder) output(pkg, part string) {
	text := a.text(pkg)
	text.part += part
	for {
		line, rest, whole := strings.Cut(text.part, "\n")
		if !whole {
			return
		}
		text.part = rest
		a.textLine(text, line)
	}
}

// flush makes the results at hand durable, together.
func (a *runAdder) flush() error {
	if len(a.pending) == 0 {
		return nil
	}
	if a.journal == nil {
		var err error
		if a.journal, err = annals.OpenJournal(a.store, a.name, a.config); err != nil {
			return err
		}
	}
	err := a.store.Update(func(tx *annals.Tx) error {
		for _, f := range a.pending {
			a.count[f.name]++
			if err := a.journal.RecordIn(tx, fmt.Sprintf("%s#%d", f.name, a.count[f.name]), f.result); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		a.kept += len(a.pending)
		a.pending = a.pending[:0]
	}
	return err
}

// shownOdd is how many lines that are no results are shown.
const shownOdd = 3

func (a *runAdder) noResult(line string, why error) {
	if a.odd++; a.odd <= shownOdd {
		if len(line) > 100 {
			line = strings.ToValidUTF8(line[:100], "") + "…"
		}
		fmt.Fprintf(a.cmd.ErrOrStderr(), "line %d %s: %s\n", a.lines.number, plain(why.Error()), plain(line))
	}
}

// someResults is a number of them for a person.
func someResults(n int) string {
	if n == 1 {
		return "1 result"
	}
	return count(n) + " results"
}

func (a *runAdder) someFound() error {
	if a.kept+len(a.pending) > 0 {
		return nil
	}
	return withHint(fmt.Errorf("no benchmark results in %d lines; nothing was recorded", a.lines.number),
		`results are lines of "go test -bench", or JSON such as {"name":"query","ms":12.5}`)
}

func (a *runAdder) tell() {
	other := ""
	if a.odd > 0 {
		other = fmt.Sprintf("; lines that are no results: %d", a.odd)
	}
	fmt.Fprintf(a.cmd.ErrOrStderr(), "%s: %s%s\n", printable(a.name), someResults(a.kept), other)
}
