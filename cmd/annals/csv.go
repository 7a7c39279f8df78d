package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/annalsdb/annals"
)

// CSV of samples begins with three columns, then has one for each field of the
// values that are JSON objects, and two for values that are none: other JSON and
// text as it is, and bytes in base64. Or it has a column for each field that was
// asked for. A file with other columns, of another program, may have one with a
// time and one with a series.
//
// A cell of a field is JSON where it is valid JSON, else the text itself; it is empty
// where there is no such field. A text that would be taken for JSON, or that readers of
// CSV would not give back, is spelled as a JSON string: "" and "12" with their quotes. So
// every value comes back, whatever program has copied the file: which cells were quoted
// says nothing, since few readers tell.
const (
	csvSeq    = "seq"
	csvSeries = "series"
	csvAt     = "at"
	csvValue  = "(value)"
	csvBytes  = "(base64)"
)

// csvWriter writes samples as rows. All of them are to be announced first, since
// the header needs to know every field.
type csvWriter struct {
	out     *csv.Writer
	columns []string
	place   map[string]int // of each column
	row     []string
	fields  []csvField // the only ones; none for all
}

func newCSVWriter(w io.Writer, fields []csvField) *csvWriter {
	c := &csvWriter{out: csv.NewWriter(w), place: map[string]int{}, fields: fields}
	for _, name := range []string{csvSeq, csvSeries, csvAt} {
		c.column(name)
	}
	for _, field := range fields {
		c.column(field.column)
	}
	return c
}

// column returns the place of a column, adding it if it is new.
func (c *csvWriter) column(name string) int {
	i, ok := c.place[name]
	if !ok {
		i = len(c.columns)
		c.columns = append(c.columns, name)
		c.place[name] = i
	}
	return i
}

// announce adds the columns that a value needs.
func (c *csvWriter) announce(value []byte) error {
	return c.eachCell(value, func(column, _ string) { c.column(column) })
}

func (c *csvWriter) header() error {
	c.row = make([]string, len(c.columns))
	return c.out.Write(c.columns)
}

func (c *csvWriter) write(s annals.Sample) error {
	clear(c.row)
	err := c.eachCell(s.Value, func(column, cell string) { c.row[c.place[column]] = cell })
	if err != nil {
		return err
	}
	c.row[c.place[csvSeq]] = strconv.FormatUint(s.Seq, 10)
	c.row[c.place[csvSeries]] = s.Series
	c.row[c.place[csvAt]] = s.At.UTC().Format("2006-01-02T15:04:05.000000Z07:00")
	return c.out.Write(c.row)
}

func (c *csvWriter) flush() error {
	c.out.Flush()
	return c.out.Error()
}

// eachCell gives the cells of a value with the names of their columns.
func (c *csvWriter) eachCell(value []byte, fn func(column, cell string)) error {
	if len(c.fields) == 0 {
		return eachCell(value, fn)
	}
	for _, field := range c.fields {
		fn(field.column, field.cell(value))
	}
	return nil
}

// ownColumn is the name of the column for a field: not one that an export itself has.
// The import takes csvEscape off again.
func ownColumn(field string) string {
	switch field {
	case csvSeq, csvSeries, csvAt, csvValue, csvBytes:
		return csvEscape + field
	}
	if strings.HasPrefix(field, csvEscape) {
		return csvEscape + field
	}
	return field
}

const csvEscape = "value."

// cellText is a JSON value as a cell.
func cellText(value []byte) string {
	if value[0] != '"' {
		return string(value)
	}
	// What unquote refuses, half a surrogate pair, stays as JSON too.
	text, err := unquote(value)
	if err != nil || len(text) == 0 || json.Valid(text) || bytes.ContainsAny(text, "\r\x00") {
		return string(value)
	}
	return string(text)
}

// eachCell gives a cell for each field of a value that is an object with any, else one.
func eachCell(value []byte, fn func(column, cell string)) error {
	switch {
	case len(value) > 0 && value[0] == '{' && json.Valid(value) && skipSpace(value[1:])[0] != '}':
	case utf8.Valid(value) && !bytes.ContainsAny(value, "\r\x00"): // a CSV reader drops carriage returns
		fn(csvValue, string(value))
		return nil
	default:
		fn(csvBytes, base64.StdEncoding.EncodeToString(value))
		return nil
	}
	return walkObject(value, func(name, value []byte) error {
		column, err := unquote(name)
		if err != nil {
			return fmt.Errorf("field %s: %w", name, err)
		}
		if bytes.ContainsAny(column, "\r\x00") { // as above
			return fmt.Errorf("field %s can't be the name of a column; --field picks others", name)
		}
		fn(ownColumn(string(column)), cellText(value))
		return nil
	})
}

// importCSV makes each row a sample.
func importCSV(im *importer) error {
	r := csv.NewReader(withoutMark(im.in))
	r.ReuseRecord = true
	header, err := r.Read()
	if err == io.EOF {
		return nil
	}
	if err != nil {
		return err
	}
	rows, err := newCSVRows(header, im.timeColumn, im.seriesColumn)
	if err != nil {
		return err
	}
	for {
		start := r.InputOffset()
		cells, err := r.Read()
		if err == io.EOF {
			return nil
		}
		var parseErr *csv.ParseError
		if err != nil && !errors.As(err, &parseErr) {
			return err
		}
		im.bar.update(r.InputOffset(), im.size)
		var series string
		var at time.Time
		var value []byte
		if parseErr == nil {
			series, at, value, err = rows.sample(cells)
		} else {
			err = fmt.Errorf("it is no CSV: %w", parseErr.Err)
		}
		if errors.Is(err, csv.ErrFieldCount) {
			err = fmt.Errorf("it has %d cells, the header has %d", len(cells), len(header))
		}
		piece := leftOut{Line: csvLine(r, parseErr), Offset: start, Bytes: int(r.InputOffset() - start)}
		if err != nil {
			piece.Reason = failureText(err)
			im.report.leaveOut(piece)
			continue
		}
		if series == "" || im.series != "" && im.seriesColumn == "" {
			series = im.seriesName()
		}
		if err := im.add(&im.report.Whole, piece, series, at, value); err != nil {
			return err
		}
	}
}

// withoutMark passes over the mark that Excel writes in front.
func withoutMark(in *bufio.Reader) io.Reader {
	const mark = "\ufeff"
	if head, _ := in.Peek(len(mark)); string(head) == mark {
		in.Discard(len(mark))
	}
	return in
}

// csvLine is the line in which the row that was read last begins.
func csvLine(r *csv.Reader, err *csv.ParseError) int {
	if err != nil {
		return err.StartLine
	}
	line, _ := r.FieldPos(0)
	return line
}

// csvRows turns rows under one header into samples.
type csvRows struct {
	own    bool // the header is of an export of annals
	header []string
	fields [][]byte // the names as JSON

	noFields bool // a row without fields is an empty value; an empty object has a cell

	time   string // the column with the time; "" for one with a usual name
	series string // the column with the series; "" for none but an export's
}

func newCSVRows(header []string, timeColumn, seriesColumn string) (*csvRows, error) {
	rows := &csvRows{time: timeColumn, series: seriesColumn}
	rows.header = append(rows.header, header...) // the reader uses it again
	for _, column := range []string{timeColumn, seriesColumn} {
		if column != "" && !slices.Contains(rows.header, column) {
			return nil, fmt.Errorf("there is no column %q; the header names %q", column, rows.header)
		}
	}
	rows.own = strings.HasPrefix(strings.Join(rows.header, ",")+",", csvSeq+","+csvSeries+","+csvAt+",")
	for _, name := range rows.header {
		if rows.own {
			name = strings.TrimPrefix(name, csvEscape)
		}
		if !utf8.ValidString(name) {
			return nil, fmt.Errorf("the header is not UTF-8: %q", name)
		}
		rows.fields = append(rows.fields, jsonString(name))
	}
	rows.noFields = rows.own && slices.Contains(rows.header, csvValue)
	return rows, rows.ambiguous()
}

// ambiguous says which columns can't be told apart.
func (r *csvRows) ambiguous() error {
	var twice []string
	for i, name := range r.header {
		if slices.Contains(r.header[:i], name) && !slices.Contains(twice, strconv.Quote(name)) {
			twice = append(twice, strconv.Quote(name))
		}
	}
	switch {
	case len(r.header) == 1 && strings.ContainsAny(r.header[0], ";\t"):
		return fmt.Errorf("the header is one column, %q: columns must be separated by commas", r.header[0])
	case len(twice) > 0:
		return fmt.Errorf("the header names columns twice: %s (each needs a name of its own)", strings.Join(twice, ", "))
	case r.time == "" && r.isTime("time") && slices.Contains(r.header, "time") && slices.Contains(r.header, "timestamp"):
		return errors.New(`the header has both "time" and "timestamp": --time-column says which one is the time`)
	}
	return nil
}

// isTime reports whether a column has the time.
func (r *csvRows) isTime(column string) bool {
	switch {
	case r.time != "":
		return column == r.time
	case r.own:
		return column == csvAt
	}
	return column == "time" || column == "timestamp"
}

// isSeries reports whether a column has the series.
func (r *csvRows) isSeries(column string) bool {
	if r.series != "" {
		return column == r.series
	}
	return r.own && column == csvSeries
}

// sample makes a row a sample. The series is "" where the row names none.
func (r *csvRows) sample(cells []string) (series string, at time.Time, value []byte, err error) {
	object := []byte("{")
	for i, cell := range cells {
		column := r.header[i]
		switch {
		case cell == "" || r.own && column == csvSeq:
		case r.isSeries(column):
			series = strings.Clone(cell)
		case r.isTime(column):
			if at, err = pointInTime(cell); err != nil {
				return "", at, nil, fmt.Errorf("its %s is %q and %w", column, cell, err)
			}
		case r.own && column == csvValue:
			value = []byte(cell)
		case r.own && column == csvBytes:
			if value, err = base64.StdEncoding.DecodeString(cell); err != nil {
				return "", at, nil, fmt.Errorf("its %s is not base64", column)
			}
		default:
			if len(object) > 1 {
				object = append(object, ',')
			}
			object = append(append(object, r.fields[i]...), ':')
			text, err := r.cell(cell)
			if err != nil {
				return "", at, nil, fmt.Errorf("its %s %w", column, err)
			}
			object = append(object, text...)
		}
	}
	if value == nil && !(r.noFields && len(object) == 1) {
		value = append(object, '}')
	}
	return series, at, value, nil
}

// cell spells a cell as JSON: in an export of annals any JSON, of other programs a number,
// true, false, an array or an object where it is one; else it is a string.
func (r *csvRows) cell(cell string) ([]byte, error) {
	if json.Valid([]byte(cell)) && (r.own || cell[0] != '"' && cell != "null") {
		return bytes.TrimSpace([]byte(cell)), nil
	}
	if !utf8.ValidString(cell) {
		return nil, errors.New("is not UTF-8")
	}
	return jsonString(cell), nil
}

// jsonString spells a string as JSON.
func jsonString(s string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.Encode(s) // a string always has a spelling
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
