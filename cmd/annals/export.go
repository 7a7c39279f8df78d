package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/annalsdb/annals"
	"github.com/spf13/cobra"
)

// exportFlags are the flags of export.
type exportFlags struct {
	format  string
	series  []string
	padding string
	fields  []string
	since   timeFlag
	until   timeFlag
	damage  damageFlag
}

func newExport() *cobra.Command {
	var f exportFlags
	cmd := verb("export DIR", "Write everything, or samples, in a form that others read",
		func(cmd *cobra.Command, args []string) error { return runExport(cmd, args[0], &f) })
	cmd.Long = `Export writes the present state of a store. The formats are

  jsonl    all keys, then the samples, as annals load reads them
  article  samples only: the value, a space and its CRC32 in hex, one a line. A
           value that is not JSON on one line cannot be written so; the status is
           then 1, and standard error says how many were left out.
  csv      samples only: seq, series, at in RFC 3339, and a column for each field of
           the values, or for those of --field alone: val.t is the field t, val.a.0
           what is deeper, val the value itself. A cell is JSON where it is valid JSON,
           else a text: texts such as "" and "12" stand there with their quotes, null
           is null, and where there is no such field the cell is empty. So annals import
           gets everything back. A field called seq, series or at is value.seq and so on

Samples come in the order in which they were written, or series by series where --series
names some. --series, --since and --until leave out other samples, and all keys.`
	cmd.Example = `  annals export data > data.ndjson
  annals export data --format csv --series load --series cpu > load.csv
  annals export data --format csv --series cpu --field val.busy_pct --since 1h > busy.csv
  annals export data --format article --padding space --series hall-003 > hall.log`
	cmd.Flags().StringVar(&f.format, "format", "jsonl", "jsonl, article or csv")
	cmd.Flags().StringArrayVar(&f.series, "series", nil, "only this series, and no keys; may be given several times")
	cmd.Flags().StringVar(&f.padding, "padding", "zero", "what fills up short checksums in the article's format: zero or space")
	cmd.Flags().StringArrayVar(&f.fields, "field", nil, "with csv: only this field of the values, such as val.t; may be given several times")
	cmd.Flags().Var(&f.since, "since", "only samples of this time and later, and no keys")
	cmd.Flags().Var(&f.until, "until", "only samples before this time, and no keys")
	f.damage.register(cmd)
	return cmd
}

// csvFields reads --field.
func (f *exportFlags) csvFields() (fields []csvField, err error) {
	if len(f.fields) > 0 && f.format != "csv" {
		return nil, errors.New("--field goes with --format csv")
	}
	for _, text := range f.fields {
		field, err := parseCSVField(text)
		if err != nil {
			return nil, err
		}
		for i, other := range fields {
			if other.column == field.column {
				return nil, fmt.Errorf("--field %s and --field %s would both be the column %q", f.fields[i], text, field.column)
			}
		}
		fields = append(fields, field)
	}
	return fields, nil
}

func runExport(cmd *cobra.Command, dir string, f *exportFlags) error {
	write, ok := map[string]func(*exporter) error{
		"jsonl": exportJSONL, "article": exportArticle, "csv": exportCSV,
	}[f.format]
	if !ok {
		return usageError(cmd, fmt.Errorf("--format must be jsonl, article or csv, not %q", f.format))
	}
	checksum, ok := map[string]string{"zero": " %08x\n", "space": " %8x\n"}[f.padding]
	if !ok {
		return usageError(cmd, fmt.Errorf("--padding must be zero or space, not %q", f.padding))
	}
	fields, err := f.csvFields()
	if err == nil {
		err = checkSpan(f.since, f.until)
	}
	if err != nil {
		return usageError(cmd, err)
	}
	window := annals.Window{Since: time.Time(f.since), Until: time.Time(f.until)}
	return f.damage.withReader(cmd, dir, func(reader *annals.Reader) error {
		snapshot := reader.Snapshot()
		defer snapshot.Close()
		e := &exporter{
			snapshot: snapshot, damage: &f.damage, out: newOutput(cmd), checksum: checksum, fields: fields, window: window,
			series: f.series, all: len(f.series) == 0, done: cmd.Context().Err,
			keys: len(f.series) == 0 && window == annals.Window{},
		}
		if err := e.findSeries(); err != nil {
			return err
		}
		return e.out.closing(write(e))
	})
}

// exporter writes one snapshot.
type exporter struct {
	snapshot *annals.Snapshot
	damage   *damageFlag
	out      *output
	series   []string // to write
	all      bool     // of all series
	keys     bool     // keys are to be written too
	window   annals.Window
	fields   []csvField // the columns of CSV; none for all
	checksum string     // how the article's format spells one
	done     func() error
}

// findSeries checks that the series asked for are there.
func (e *exporter) findSeries() error {
	there := map[string]bool{}
	for info, err := range e.damage.sampler(e.snapshot).Series() {
		if err != nil {
			return err
		}
		there[info.Name] = true
	}
	for _, name := range e.series {
		if !there[name] {
			return answerNo("no series %q", name)
		}
	}
	return nil
}

// eachSample calls fn for the samples of all series that are to be written.
func (e *exporter) eachSample(fn func(annals.Sample) error) error {
	loops := []iter.Seq2[annals.Sample, error]{e.snapshot.AllSamples(e.window)}
	if !e.all {
		loops = nil
		for _, name := range e.series {
			loops = append(loops, e.snapshot.Samples(name, e.window))
		}
	}
	for _, loop := range loops {
		for sample, err := range passing(e.damage, loop) {
			err = errors.Join(err, e.done())
			if err == nil {
				err = fn(sample)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func exportJSONL(e *exporter) error {
	if e.keys {
		for entry, err := range passing(e.damage, e.snapshot.Scan(annals.Range{})) {
			err = errors.Join(err, e.done())
			if err == nil {
				err = e.out.object(entry.AppendJSON)
			}
			if err != nil {
				return err
			}
		}
	}
	return e.eachSample(func(s annals.Sample) error { return e.out.object(s.AppendJSON) })
}

func exportArticle(e *exporter) error {
	left := 0
	var line []byte
	err := e.eachSample(func(s annals.Sample) error {
		if bytes.ContainsAny(s.Value, "\r\n") || !json.Valid(s.Value) {
			left++
			return nil
		}
		line = appendArticle(line[:0], s.Value, e.checksum)
		_, err := e.out.Write(line)
		return err
	})
	if err == nil && left > 0 {
		return answerNo("left out %d samples that are not JSON on one line", left)
	}
	return err
}

// exportCSV reads everything twice unless it is told the fields: the header needs to
// know every one.
func exportCSV(e *exporter) error {
	w := newCSVWriter(e.out, e.fields)
	if len(e.fields) == 0 {
		if err := e.eachSample(func(s annals.Sample) error { return w.announce(s.Value) }); err != nil {
			return err
		}
	}
	if err := w.header(); err != nil {
		return err
	}
	if err := e.eachSample(w.write); err != nil {
		return err
	}
	return w.flush()
}
