package main

import (
	"testing"
	"time"

	"github.com/annalsdb/annals"
)

// FuzzOps reads any line as an op. What is accepted comes back the same when it is
// spelled as export spells it, so that a store that was exported and loaded is the
// same store.
func FuzzOps(f *testing.F) {
	for _, line := range []string{
		`{"key":"k","val":{"b": 1.50 , "a":[ ]}}`,
		` { "key" : "two\nlines\u0000\ud83d\ude00" , "txt" : "a\tb\u2028" } `,
		`{"k64":"AP8=","b64":"AAEC/w=="}`,
		`{"key":"k","del":true}`,
		`{"key":"k","exp":1732284000.1234567,"val":1e400}`,
		`{"seq":9,"dur":8,"more":true,"ser":"s","at":-0.5,"txt":""}`,
		`{"ser":"s","val":[1,{"x":"]"}],"more":false,"at":12E-1}`,
		`{"key":"\ufffd","val":"\ud800"}`,
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		o, err := parseOp(line)
		if err != nil {
			return
		}
		record := annals.Record{Seq: 1, Kind: o.kind, Key: o.name, Series: o.name, Value: o.value, At: o.at, Expires: o.expires, More: o.more}
		spelled := record.AppendJSON(nil)
		again, err := parseOp(spelled)
		if err != nil {
			t.Fatalf("%s became %s: %v", line, spelled, err)
		}
		if o.kind == annals.KindSample && o.at.IsZero() {
			again.at = time.Time{} // the store gives it one
		}
		if o.expires.Equal(time.UnixMicro(0)) {
			o.expires = time.Time{} // which stands for never
		}
		if !equalOps(o, again) {
			t.Fatalf("%s became %s:\n have %+v\n want %+v", line, spelled, again, o)
		}
	})
}
