package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/perf/benchfmt"
)

// measured is what one benchmark has given: a line of `go test -bench`, or a result
// that a harness recorded in a journal.
type measured struct {
	name       string
	iterations int
	values     []quantity
	config     []benchLabel // goos, pkg, cpu and the like
}

// quantity is a number in the unit in which it was given.
type quantity struct {
	unit  string
	value float64
}

type benchLabel struct{ key, value string }

// appendJSON spells it as it is stored, in the order in which it was read.
func (m *measured) appendJSON(dst []byte) []byte {
	dst = append(append(dst, `{"name":`...), jsonOf(m.name)...)
	if m.iterations > 0 {
		dst = fmt.Appendf(dst, `,"iterations":%d`, m.iterations)
	}
	dst = append(dst, `,"values":{`...)
	for i, q := range m.values {
		dst = append(append(append(jsonComma(dst, i), jsonOf(q.unit)...), ':'), jsonOf(q.value)...)
	}
	dst = append(dst, '}')
	if len(m.config) > 0 {
		dst = append(dst, `,"config":{`...)
		for i, l := range m.config {
			dst = append(append(append(jsonComma(dst, i), jsonOf(l.key)...), ':'), jsonOf(l.value)...)
		}
		dst = append(dst, '}')
	}
	return append(dst, '}')
}

func jsonComma(dst []byte, i int) []byte {
	if i > 0 {
		return append(dst, ',')
	}
	return dst
}

// jsonOf encodes what always can be: text, and numbers that came from JSON or from
// the benchmark format, less NaN and infinities.
func jsonOf(v any) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return []byte("null")
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}

// repetition is what tells repeated results of one benchmark apart in a key.
var repetition = regexp.MustCompile(`#[0-9]+$`)

// measurements finds the numbers in the result of a key: a number; a text that is
// benchmark output; an object as `runs add` stores it; any object, of which the
// numbers are values, their names the units, and texts are labels, but for a "value"
// with its "unit"; or a list of these. Without a name of its own a result has that of
// the key, less a repetition's #1.
func measurements(key string, result []byte) []measured {
	name := repetition.ReplaceAllString(key, "")
	switch value := bytes.TrimSpace(result); {
	case len(value) == 0:
		return nil
	case value[0] == '"':
		var text string
		if json.Unmarshal(value, &text) != nil {
			return nil
		}
		var found []measured
		var p benchText
		for line := range strings.Lines(text) {
			if m, _ := p.line(strings.TrimSuffix(line, "\n")); m != nil {
				found = append(found, *m)
			}
		}
		return found
	case value[0] == '{':
		m, err := fromObject(name, value)
		if err != nil || len(m.values) == 0 {
			return nil
		}
		return []measured{m}
	case value[0] == '[':
		var list []json.RawMessage
		if json.Unmarshal(value, &list) != nil {
			return nil
		}
		var found []measured
		for _, element := range list {
			found = append(found, measurements(key, element)...)
		}
		return found
	default:
		if q, ok := jsonNumber(value); ok {
			return []measured{{name: name, values: []quantity{{"value", q}}}}
		}
		return nil
	}
}

// fromObject reads an object; see measurements.
func fromObject(name string, object []byte) (measured, error) {
	m := measured{name: name}
	fields, err := fieldsOf(object)
	for _, f := range fields {
		switch f.key {
		case "name":
			if err := json.Unmarshal(f.value, &m.name); err != nil {
				return m, errors.New(`its "name" is no text`)
			}
		case "iterations":
			n, _ := jsonNumber(f.value)
			m.iterations = int(min(max(n, 0), math.MaxInt32))
		case "values", "config":
			if f.value[0] == '{' {
				m.take("", f.value)
				continue
			}
			fallthrough
		default:
			m.field(f.key, f.value)
		}
	}
	m.nameUnit()
	return m, err
}

// nameUnit gives the value called "value" the unit called "unit".
func (m *measured) nameUnit() {
	i := slices.IndexFunc(m.config, func(l benchLabel) bool { return l.key == "unit" && l.value != "" })
	if i < 0 {
		return
	}
	found := false
	for j := range m.values {
		if m.values[j].unit == "value" {
			m.values[j].unit, found = m.config[i].value, true
		}
	}
	if found {
		m.config = slices.Delete(m.config, i, i+1)
	}
}

// take reads the fields of an object inside the result.
func (m *measured) take(prefix string, object []byte) {
	fields, err := fieldsOf(object)
	if err != nil {
		return
	}
	for _, f := range fields {
		m.field(prefix+f.key, f.value)
	}
}

func (m *measured) field(key string, value []byte) {
	switch value[0] {
	case '{':
		m.take(key+".", value)
	case '[': // repeated measurements
		var list []float64
		if json.Unmarshal(value, &list) == nil {
			for _, n := range list {
				m.values = append(m.values, quantity{key, n})
			}
		}
	case '"':
		var text string
		if json.Unmarshal(value, &text) == nil {
			m.config = append(m.config, benchLabel{key, text})
		}
	case 't', 'f':
		m.config = append(m.config, benchLabel{key, string(value)})
	default:
		if n, ok := jsonNumber(value); ok {
			m.values = append(m.values, quantity{key, n})
		}
	}
}

func jsonNumber(value []byte) (float64, bool) {
	n, err := strconv.ParseFloat(string(value), 64)
	return n, err == nil && !math.IsInf(n, 0) && !math.IsNaN(n)
}

type jsonField struct {
	key   string
	value json.RawMessage
}

// fieldsOf returns the fields of a JSON object in their order.
func fieldsOf(object []byte) (fields []jsonField, err error) {
	dec := json.NewDecoder(bytes.NewReader(object))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("it is no JSON object")
	}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		f := jsonField{key: t.(string)} // or Token had given an error
		if err := dec.Decode(&f.value); err != nil {
			return nil, err
		}
		fields = append(fields, f)
	}
	_, err = dec.Token()
	return fields, err
}

// benchText reads benchmark output line by line. Labels hold from their line on.
type benchText struct {
	labels []string // keys and values in turn
	reader benchfmt.Reader
}

// What go test prints beside results, and what is a label, as the benchmark format
// has it: a word in lower case and a colon.
var (
	testFrame = regexp.MustCompile(`^(\s*|PASS|ok\s.*|\?\s.*|Benchmark\S*\s*|=== .*|\s*--- (PASS|BENCH|SKIP).*|testing: warning: no tests to run)$`)
	labelLine = regexp.MustCompile(`^([\p{Ll}][^\s\p{Lu}:]*):(?:[ \t]+(.*))?$`)
)

// line reads one line. It returns nil if that is no result, and an error if it is
// neither a label nor what go test prints beside results.
func (p *benchText) line(line string) (*measured, error) {
	line = strings.TrimSuffix(line, "\r")
	if l := labelLine.FindStringSubmatch(line); l != nil && l[1] != "panic" { // which looks like one
		p.label(l[1], l[2])
		return nil, nil
	}
	if testFrame.MatchString(line) {
		return nil, nil
	}
	if strings.HasPrefix(line, "Unit ") {
		return nil, errors.New("is not kept: what is said of units is not looked at")
	}
	if !strings.HasPrefix(line, "Benchmark") {
		return nil, errors.New("is no benchmark output")
	}
	p.reader.Reset(strings.NewReader(line), "", p.labels...)
	if !p.reader.Scan() {
		return nil, errors.New("is no benchmark result")
	}
	switch r := p.reader.Result().(type) {
	case *benchfmt.Result:
		return p.result(r)
	case *benchfmt.SyntaxError:
		return nil, errors.New(r.Msg)
	}
	return nil, errors.New("is no benchmark result")
}

func (p *benchText) result(r *benchfmt.Result) (*measured, error) {
	m := measured{name: string(r.Name.Full()), iterations: r.Iters}
	for _, v := range r.Values {
		q := quantity{v.Unit, v.Value}
		if v.OrigUnit != "" {
			q = quantity{v.OrigUnit, v.OrigValue}
		}
		if math.IsInf(q.value, 0) || math.IsNaN(q.value) {
			return nil, fmt.Errorf("has %v %s, which is no number", q.value, q.unit)
		}
		m.values = append(m.values, q)
	}
	for i := 0; i < len(p.labels); i += 2 {
		m.config = append(m.config, benchLabel{p.labels[i], p.labels[i+1]})
	}
	return &m, nil
}

// label sets a label, or takes it away if the value is empty.
func (p *benchText) label(key, value string) {
	for i := 0; i < len(p.labels); i += 2 {
		if p.labels[i] == key {
			p.labels = append(p.labels[:i:i], p.labels[i+2:]...)
			break
		}
	}
	if value != "" {
		p.labels = append(p.labels, key, value)
	}
}
