package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/annalsdb/annals"
)

// FuzzCSVThereAndBack writes two samples as CSV, whatever their values are, and reads
// them: the values must mean the same.
func FuzzCSVThereAndBack(f *testing.F) {
	for _, seed := range []string{
		``, `""`, `null`, `{}`, `{"a":""}`, `{"a":null}`, `{"a":"12","b":12}`, `{"a":"\r\n"}`, "a\r\nb", "\xff",
		`{"seq":1,"value.seq":2,"(value)":3}`, `{"a":"\"b\""}`, `{"":" 7 "}`, `{"a":"\ud800"}`, "{\"a\":\"\xff\"}",
	} {
		f.Add([]byte(seed), []byte(`{"a":1}`))
		f.Add([]byte(seed), []byte("text"))
	}
	f.Fuzz(func(t *testing.T, one, other []byte) {
		var file bytes.Buffer
		w := newCSVWriter(&file, nil)
		at := time.Unix(1732284000, 0)
		samples := []annals.Sample{{Seq: 1, Series: "s", At: at, Value: one}, {Seq: 2, Series: "s", At: at, Value: other}}
		for _, s := range samples {
			if w.announce(s.Value) != nil {
				return // a name that is no text
			}
		}
		must(t, w.header())
		for _, s := range samples {
			must(t, w.write(s))
		}
		must(t, w.flush())
		r := csv.NewReader(&file)
		header, err := r.Read()
		must(t, err)
		rows, err := newCSVRows(header, "", "")
		must(t, err)
		for _, s := range samples {
			cells, err := r.Read()
			must(t, err)
			series, when, value, err := rows.sample(cells)
			if err != nil || series != "s" || !when.Equal(at) || !sameValue(value, s.Value) {
				t.Fatalf("%q came back as %q, at %s in %q: %v", s.Value, value, when, series, err)
			}
		}
	})
}

// sameValue tells whether two values are the same bytes, or JSON objects with the same
// fields.
func sameValue(a, b []byte) bool {
	var x, y map[string]json.RawMessage
	if bytes.Equal(a, b) {
		return true
	}
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil || len(x) != len(y) {
		return false
	}
	for name, value := range x {
		var v, w any
		if json.Unmarshal(value, &v) != nil || json.Unmarshal(y[name], &w) != nil || !reflect.DeepEqual(v, w) {
			return false
		}
	}
	return true
}
