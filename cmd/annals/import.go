package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/annalsdb/annals"
	"github.com/spf13/cobra"
)

// importFlags are the flags of import.
type importFlags struct {
	inputFlags
	series string
	format string
	asJSON bool

	timeColumn, seriesColumn string // of CSV
}

func newImport() *cobra.Command {
	var f importFlags
	cmd := verb("import DIR FILE", "Take in a log of checksummed lines, JSON lines, or CSV",
		func(cmd *cobra.Command, args []string) error { return runImport(cmd, args[0], args[1], &f) })
	cmd.Long = `Import makes each record of FILE a sample of a series. The formats are

  article  a JSON object, a space and its CRC32 in hex, padded with spaces or zeros.
           Whole records inside lines that are damaged are recovered.
  jsonl    any JSON, one a line
  csv      a header, then rows: each becomes a JSON object. An export of annals is taken
           back as it was; of other files --time-column and --series-column say which
           columns have time and series, and a cell is a number, true, false, an array or
           an object where it is one, else a text. An empty cell, "" too, is no field.
           Each column needs a name of its own, and all is UTF-8

The field or column "timestamp" or "time", in Unix seconds or like 2024-11-22T14:00:00Z,
is the time of the sample; without one it is the time of the import.
What is bad, or larger than --max-value, is left out, and standard error says where and
why; everything else is imported. The status is then 1. FILE - is standard input.`
	cmd.Example = `  annals import data measures.log
  annals import data export.csv --series hall-003
  annals import data sensors.csv --time-column measured --series-column sensor
  zcat old.log.gz | annals import data - --series old --format article`
	f.register(cmd)
	cmd.Flags().StringVar(&f.series, "series", "", "the series (default: FILE's name without folder and ending)")
	cmd.Flags().StringVar(&f.format, "format", "", "article, jsonl or csv (default: guessed from FILE)")
	cmd.Flags().StringVar(&f.timeColumn, "time-column", "", "of CSV: the column with the time (default: time or timestamp)")
	cmd.Flags().StringVar(&f.seriesColumn, "series-column", "", "of CSV: the column with the series; a row where it is empty goes to --series")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print what was imported and left out as one JSON object")
	return cmd
}

// importReport is what an import found.
type importReport struct {
	Format    string    `json:"format"`
	Imported  int       `json:"imported"`  // samples written: whole and recovered
	Whole     int       `json:"whole"`     // good records
	Recovered int       `json:"recovered"` // good records found inside bad lines
	LeftOut   []leftOut `json:"left_out,omitempty"`
}

// leftOut is a piece of the file that did not become a sample.
type leftOut struct {
	Line   int    `json:"line"`
	Offset int64  `json:"offset"` // of the piece in the file
	Bytes  int    `json:"bytes"`
	Reason string `json:"reason"`
}

func (r *importReport) leaveOut(l leftOut) { r.LeftOut = append(r.LeftOut, l) }

// answer is no if something was left out: a script must not take that for all of FILE.
func (r *importReport) answer(file string) error {
	piece := map[string]string{"article": "piece", "jsonl": "line", "csv": "row"}[r.Format]
	switch n := len(r.LeftOut); n {
	case 0:
		return nil
	case 1:
		return answerNo("%q: 1 %s is no sample and was not imported; the reason is above", file, piece)
	default:
		return answerNo("%q: %d %ss are no samples and were not imported; the reasons are above", file, n, piece)
	}
}

func runImport(cmd *cobra.Command, dir, file string, f *importFlags) error {
	in, size, err := openInput(cmd, []string{file})
	if err != nil {
		return err
	}
	defer in.Close()
	if err := f.checkSeries(file); err != nil {
		return usageError(cmd, err)
	}
	buffered := bufio.NewReaderSize(interruptible(cmd.Context(), in), 64<<10)
	if f.format == "" {
		f.format = guessFormat(file, buffered)
	}
	read, ok := map[string]func(*importer) error{
		"article": importArticle, "jsonl": importJSONL, "csv": importCSV,
	}[f.format]
	if !ok {
		return usageError(cmd, fmt.Errorf("--format must be article, jsonl or csv, not %q", f.format))
	}
	if f.format != "csv" && f.timeColumn+f.seriesColumn != "" {
		return usageError(cmd, fmt.Errorf("--time-column and --series-column are for CSV, and this is %s", f.format))
	}
	report := importReport{Format: f.format}
	opts := f.options(cmd)
	err = withStore(dir, opts, func(store *annals.Store) error {
		bar := newProgress(cmd, "importing")
		defer bar.end()
		return writeThrough(cmd, store, opts.Sync, false, func(ctx context.Context, p *pipeline) error {
			return read(&importer{
				in: buffered, size: size, bar: bar, pipeline: p, report: &report, maxValue: int(f.maxValue),
				series: f.series, file: file, done: ctx.Err, timeColumn: f.timeColumn, seriesColumn: f.seriesColumn,
			})
		})
	})
	report.Imported = report.Whole + report.Recovered
	tellImport(cmd, file, &report, err == nil)
	if err == nil && f.asJSON {
		err = printJSON(cmd, report)
	}
	return cmpOr(err, func() error { return report.answer(file) })
}

// tellImport says on standard error what was left out and, if the import came to
// its end, what was not.
func tellImport(cmd *cobra.Command, file string, r *importReport, done bool) {
	w := cmd.ErrOrStderr()
	for _, l := range r.LeftOut {
		fmt.Fprintf(w, "%s:%d: left out %d bytes at offset %d: %s\n", printable(file), l.Line, l.Bytes, l.Offset, plain(l.Reason))
	}
	if done {
		fmt.Fprintf(w, "%s: %d samples: %d whole, %d recovered from damaged lines; %d pieces left out\n",
			printable(file), r.Imported, r.Whole, r.Recovered, len(r.LeftOut))
	}
}

// checkSeries refuses a name for samples that name no series themselves which the store
// would refuse.
func (f *importFlags) checkSeries(file string) error {
	switch name := cmp.Or(f.series, fileSeries(file)); {
	case f.series == "" && file == "-":
		return errors.New("--series is missing: standard input has no name")
	case name == "":
		return fmt.Errorf("--series is missing: the name of %q gives none", file)
	case len(name) > 255:
		return fmt.Errorf("--series has %d bytes, the name of a series has 1 to 255", len(name))
	}
	return nil
}

// fileSeries is the name of a file without folder and ending.
func fileSeries(file string) string {
	base := filepath.Base(file)
	return strings.TrimSuffix(base, filepath.Ext(base))
}

// importer reads one file into a store.
type importer struct {
	in       *bufio.Reader
	size     int64
	bar      *progress
	pipeline *pipeline
	report   *importReport
	maxValue int
	series   string // given with --series
	file     string
	done     func() error // not nil once the import shall end

	timeColumn, seriesColumn string
}

// seriesName is the series of samples that name none themselves.
func (im *importer) seriesName() string { return cmp.Or(im.series, fileSeries(im.file)) }

// add writes one sample, which n counts; a zero time is the present. One that the
// store would refuse is left out, as the piece of the file that it came from.
func (im *importer) add(n *int, from leftOut, series string, at time.Time, value []byte) error {
	if err := im.done(); err != nil {
		return err
	}
	o := op{kind: annals.KindSample, name: series, value: value, at: at}
	if err := o.check(im.maxValue); err != nil {
		from.Reason = failureText(err)
		im.report.leaveOut(from)
		return nil
	}
	var b annals.Batch
	o.addTo(&b)
	if err := im.pipeline.submit(&b); err != nil {
		return fmt.Errorf("line %d: %w", from.Line, err)
	}
	*n++
	return nil
}

func importArticle(im *importer) error {
	lines, series := newLineReader(im.in), im.seriesName()
	for {
		line, err := lines.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		im.bar.update(lines.end, im.size)
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		record, err := articleRecord(line)
		if err != nil {
			if err := im.addRecovered(lines, line, err); err != nil {
				return err
			}
			continue
		}
		if err := im.add(&im.report.Whole, lines.piece(line), series, timestampOf(record), record); err != nil {
			return err
		}
	}
}

// addRecovered writes the whole records inside a bad line and reports the rest.
func (im *importer) addRecovered(lines *lineReader, line []byte, reason error) error {
	from := 0
	leave := func(to int, reason string) {
		if piece := bytes.TrimSpace(line[from:to]); len(piece) > 0 {
			im.report.leaveOut(leftOut{lines.number, lines.start + int64(from), to - from, reason})
		}
	}
	for _, place := range articleRecover(line) {
		leave(place[0], "it was cut short, and the next record was written behind it")
		record := line[place[0]:place[1]]
		piece := leftOut{Line: lines.number, Offset: lines.start + int64(place[0]), Bytes: len(record)}
		if err := im.add(&im.report.Recovered, piece, im.seriesName(), timestampOf(record), record); err != nil {
			return err
		}
		from = min(place[1]+len(" 00000000"), len(line))
	}
	leave(len(line), reason.Error())
	return nil
}

func importJSONL(im *importer) error {
	lines, series := newLineReader(im.in), im.seriesName()
	for {
		line, err := lines.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		im.bar.update(lines.end, im.size)
		value := bytes.TrimSpace(line)
		switch {
		case len(value) == 0:
			continue
		case !json.Valid(value):
			piece := lines.piece(line)
			piece.Reason = "it is not JSON"
			im.report.leaveOut(piece)
			continue
		}
		if err := im.add(&im.report.Whole, lines.piece(line), series, timestampOf(value), value); err != nil {
			return err
		}
	}
}

// timestampOf is the time that a record itself tells in its field timestamp or
// time, in Unix seconds or RFC 3339; zero if it tells none.
func timestampOf(record []byte) time.Time {
	var fields struct {
		Timestamp json.RawMessage `json:"timestamp"`
		Time      json.RawMessage `json:"time"`
	}
	if json.Unmarshal(record, &fields) != nil {
		return time.Time{} // no object, so without fields
	}
	for _, raw := range []json.RawMessage{fields.Timestamp, fields.Time} {
		text := raw
		if len(raw) > 0 && raw[0] == '"' {
			text, _ = unquote(raw)
		}
		if at, err := pointInTime(string(text)); err == nil {
			return at
		}
	}
	return time.Time{}
}

// guessFormat looks at the file's name and its first lines.
func guessFormat(file string, in *bufio.Reader) string {
	if strings.EqualFold(filepath.Ext(file), ".csv") {
		return "csv"
	}
	head, _ := in.Peek(64 << 10) // what cannot be read now fails the import soon
	article, jsonl := 0, 0
	for line := range bytes.Lines(head) {
		line = bytes.TrimSpace(line)
		if _, err := articleRecord(line); err == nil {
			article++
		} else if json.Valid(line) {
			jsonl++
		}
	}
	switch {
	case article > 0 && article >= jsonl:
		return "article"
	case jsonl > 0:
		return "jsonl"
	}
	header, _, _ := bytes.Cut(bytes.TrimSpace(head), []byte("\n"))
	if bytes.ContainsRune(header, ',') && header[0] != '{' {
		return "csv"
	}
	return "article"
}
