package main

import (
	"bytes"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/annalsdb/annals"
)

// CSV of samples begins with three columns, then has one for each field of the
// values that are JSON objects, and two for values that are none: other JSON and
// text as it is, and bytes in base64. A file with other columns, of another
// program, may have one with a time.
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
}

func newCSVWriter(w io.Writer) *csvWriter {
	c := &csvWriter{out: csv.NewWriter(w), place: map[string]int{}}
	for _, name := range []string{csvSeq, csvSeries, csvAt} {
		c.column(name)
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
	return eachCell(value, func(column, _ string) { c.column(column) })
}

func (c *csvWriter) header() error {
	c.row = make([]string, len(c.columns))
	return c.out.Write(c.columns)
}

func (c *csvWriter) write(s annals.Sample) error {
	clear(c.row)
	err := eachCell(s.Value, func(column, cell string) { c.row[c.place[column]] = cell })
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
func eachCell(value []byte, fn func(column, cell string)) error {
	switch {
	case len(value) > 0 && value[0] == '{' && json.Valid(value):
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
		cell := string(value)
		switch {
		case cell == "null":
			cell = ""
		case value[0] == '"':
			// What unquote refuses, half a surrogate pair, stays as JSON.
			if text, err := unquote(value); err == nil {
				cell = string(text)
			}
		}
		switch c := string(column); c {
		case csvSeq, csvSeries, csvAt, csvValue, csvBytes:
			fn("value."+c, cell)
		default:
			fn(c, cell)
		}
		return nil
	})
}

// importCSV makes each row a sample.
func importCSV(im *importer) error {
	r := csv.NewReader(im.in)
	r.ReuseRecord = true
	header, err := r.Read()
	if err == io.EOF {
		return nil
	}
	if err != nil {
		return err
	}
	rows := newCSVRows(header)
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
		}
		if err != nil {
			im.report.leaveOut(leftOut{csvLine(r, parseErr), start, int(r.InputOffset() - start), err.Error()})
			continue
		}
		if series == "" || im.series != "" {
			series = im.seriesName()
		}
		if err := im.add(series, at, value); err != nil {
			return fmt.Errorf("line %d: %w", csvLine(r, nil), err)
		}
		im.report.Whole++
	}
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
}

func newCSVRows(header []string) *csvRows {
	rows := &csvRows{}
	for i, name := range header {
		if i == 0 {
			name = strings.TrimPrefix(name, "\ufeff") // which Excel writes
		}
		rows.header = append(rows.header, name)
	}
	rows.own = strings.HasPrefix(strings.Join(rows.header, ",")+",", csvSeq+","+csvSeries+","+csvAt+",")
	for _, name := range rows.header {
		if rows.own {
			name = strings.TrimPrefix(name, "value.")
		}
		rows.fields = append(rows.fields, jsonString(name))
	}
	return rows
}

// sample makes a row a sample. The series is "" where the row names none.
func (r *csvRows) sample(cells []string) (series string, at time.Time, value []byte, err error) {
	object := []byte("{")
	for i, cell := range cells {
		column := r.header[i]
		switch {
		case cell == "" || r.own && column == csvSeq:
		case r.own && column == csvSeries:
			series = strings.Clone(cell)
		case r.own && column == csvAt, !r.own && (column == "time" || column == "timestamp"):
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
			object = append(object, csvCell(cell)...)
		}
	}
	if value == nil {
		value = append(object, '}')
	}
	return series, at, value, nil
}

// csvCell spells a cell as JSON: a number, true, false, an array or an object
// where it is one, else a string.
func csvCell(cell string) []byte {
	if cell[0] != '"' && cell != "null" && json.Valid([]byte(cell)) {
		return []byte(cell)
	}
	return jsonString(cell)
}

// jsonString spells a string as JSON.
func jsonString(s string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.Encode(s) // a string always has a spelling
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
