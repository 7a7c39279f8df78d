package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/annalsdb/annals"
)

func TestParseOpReadsEverySpelling(t *testing.T) {
	at := time.UnixMicro(1732284000123456)
	tests := []struct {
		line string
		want op
	}{
		{`{"key":"k","val":{"b": 1.50 , "a":[ ]}}`, op{kind: annals.KindPut, name: "k", value: []byte(`{"b": 1.50 , "a":[ ]}`)}},
		{` { "key" : "k" , "val" : -1e3 } `, op{kind: annals.KindPut, name: "k", value: []byte(`-1e3`)}},
		{`{"val":null,"key":""}`, op{kind: annals.KindPut, name: "", value: []byte(`null`)}},
		{`{"key":"k","val":"a\"}{,"}`, op{kind: annals.KindPut, name: "k", value: []byte(`"a\"}{,"`)}},
		{`{"key":"two\nlines\u0000\ud83d\ude00","txt":"a\tb"}`, op{kind: annals.KindPut, name: "two\nlines\x00😀", value: []byte("a\tb")}},
		{`{"key":"\ufffd","txt":"\\ud800"}`, op{kind: annals.KindPut, name: "\ufffd", value: []byte(`\ud800`)}},
		{`{"k64":"AP8=","b64":"AAEC/w=="}`, op{kind: annals.KindPut, name: "\x00\xff", value: []byte{0, 1, 2, 255}}},
		{`{"key":"k","b64":""}`, op{kind: annals.KindPut, name: "k", value: []byte{}}},
		{`{"key":"k","del":true}`, op{kind: annals.KindDelete, name: "k"}},
		{`{"key":"k","exp":1732284000.123456,"val":1}`, op{kind: annals.KindPut, name: "k", value: []byte("1"), expires: at}},
		{`{"seq":9,"dur":8,"more":true,"ser":"s","at":1732284000.123456,"txt":""}`, op{kind: annals.KindSample, name: "s", value: []byte{}, at: at, more: true}},
		{`{"ser":"s","val":[1,{"x":"]"}],"more":false}`, op{kind: annals.KindSample, name: "s", value: []byte(`[1,{"x":"]"}]`)}},
	}
	for _, test := range tests {
		got, err := parseOp([]byte(test.line))
		if err != nil {
			t.Errorf("%s: %v", test.line, err)
		} else if !equalOps(got, test.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", test.line, got, test.want)
		}
	}
}

func equalOps(a, b op) bool {
	return a.kind == b.kind && a.name == b.name && bytes.Equal(a.value, b.value) && a.more == b.more &&
		a.at.Equal(b.at) && a.expires.Equal(b.expires)
}

func TestParseOpRefuses(t *testing.T) {
	tests := []struct{ line, reason string }{
		{`{"key":"k","val":1`, "not JSON"},
		{`{"key":"k","val":1} 8cdc1683`, "not JSON"},
		{`nonsense`, "not JSON"},
		{`[1]`, "not a JSON object"},
		{`"key"`, "not a JSON object"},
		{`{}`, `none of "key", "k64", "ser"`},
		{`{"key":"k"}`, `none of "val", "txt", "b64", "del"`},
		{`{"val":1}`, `none of "key"`},
		{`{"key":"k","ser":"s","val":1}`, `both "key" and "ser"`},
		{`{"key":"k","k64":"aw==","val":1}`, `both "key" and "k64"`},
		{`{"key":"k","val":1,"txt":"1"}`, `both "val" and "txt"`},
		{`{"key":"k","val":1,"val":2}`, `field "val" comes twice`},
		{`{"key":"k","val":1,"ttl":2}`, `unknown field "ttl"`},
		{`{"Key":"k","val":1}`, `unknown field "Key"`},
		{`{"key":7,"val":1}`, `"key": must be a string`},
		{`{"key":null,"val":1}`, `"key": must be a string`},
		{"{\"key\":\"\xff\",\"val\":1}", "not UTF-8"},
		{`{"key":"\ud800","val":1}`, "surrogate"},
		{`{"key":"\ude00\ud83d","val":1}`, "surrogate"},
		{`{"key":"k","txt":"x\ud83d"}`, "surrogate"},
		{`{"key":"k","txt":1}`, `"txt": must be a string`},
		{`{"key":"k","b64":"!"}`, `"b64": not base64`},
		{`{"k64":"AP8","val":1}`, `"k64": not base64`},
		{`{"key":"k","del":false}`, `"del" must be true`},
		{`{"ser":"s","del":true}`, "a sample cannot be deleted"},
		{`{"key":"k","at":1,"val":1}`, `"at" is for a sample`},
		{`{"ser":"s","exp":1,"val":1}`, `"exp" is for a key`},
		{`{"key":"k","exp":1,"del":true}`, `"exp" is for a key`},
		{`{"key":"k","exp":"soon","val":1}`, `"exp": no time`},
		{`{"ser":"s","at":null,"val":1}`, `"at": no time`},
		{`{"ser":"s","at":1e300,"val":1}`, `too large`},
		{`{"key":"k","more":1,"val":1}`, `"more" must be true or false`},
		{`{"key":"k","more":"true","val":1}`, `"more" must be true or false`},
	}
	for _, test := range tests {
		_, err := parseOp([]byte(test.line))
		if err == nil || !strings.Contains(err.Error(), test.reason) {
			t.Errorf("%s: error is %v, must say %q", test.line, err, test.reason)
		}
	}
}

// FuzzDialect proves that load understands what the log spells: any record comes
// back as it was.
func FuzzDialect(f *testing.F) {
	f.Add(uint8(0), "key", []byte(`{"a": 1}`), int64(0), false)
	f.Add(uint8(0), "spaces", []byte(` [1] `), int64(0), false)
	f.Add(uint8(1), "series", []byte("two\nlines"), int64(1732284000123456), true)
	f.Add(uint8(2), "\xff\"\\\u2028", []byte{}, int64(0), false)
	f.Add(uint8(0), "", []byte{0, 255}, int64(-1), true)
	f.Fuzz(func(t *testing.T, kind uint8, name string, value []byte, micros int64, more bool) {
		want := op{name: name, value: value, more: more}
		when := time.UnixMicro(micros % (1 << 53))
		switch kind % 3 {
		case 0:
			want.kind, want.expires = annals.KindPut, when
		case 1:
			want.kind, want.at, want.name = annals.KindSample, when, strings.ToValidUTF8(name, "?")
		case 2:
			want.kind, want.value = annals.KindDelete, nil
		}
		record := annals.Record{
			Seq: 7, Kind: want.kind, Key: want.name, Series: want.name, Value: want.value,
			At: want.at, Expires: want.expires, More: more,
		}
		line := record.AppendJSON(nil)
		got, err := parseOp(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		// 1970 stands for no expiry; a sample has always a time.
		if micros%(1<<53) == 0 {
			want.expires = time.Time{}
		}
		if !equalOps(got, want) {
			t.Fatalf("%s:\n got %+v\nwant %+v", line, got, want)
		}
	})
}

func TestParseMicrosRoundsAsTheLogDoes(t *testing.T) {
	tests := []struct {
		text     string
		down, up int64
	}{
		{"0", 0, 0},
		{"1732284000.123456", 1732284000123456, 1732284000123456},
		{"1732284000.1234560", 1732284000123456, 1732284000123456},
		{"1732284000.1234561", 1732284000123456, 1732284000123457},
		{"-1.5", -1500000, -1500000},
		{"-0.0000001", -1, 0},
		{"1.5e3", 1500000000, 1500000000},
		{"12E-1", 1200000, 1200000},
		{"9007199254", 9007199254000000, 9007199254000000},
	}
	for _, test := range tests {
		down, err := parseMicros(test.text, false)
		if err != nil {
			t.Errorf("%s: %v", test.text, err)
		}
		up, err := parseMicros(test.text, true)
		if err != nil {
			t.Errorf("%s: %v", test.text, err)
		}
		if down != test.down || up != test.up {
			t.Errorf("%s: %d and %d, want %d and %d", test.text, down, up, test.down, test.up)
		}
	}
	for _, bad := range []string{"", "-", ".5", "x", "1.2.3", "0x10", "NaN", "Infinity", "1e", "1_000", "--1"} {
		if n, err := parseMicros(bad, false); err == nil {
			t.Errorf("%q is read as %d", bad, n)
		}
	}
	if _, err := parseMicros("9007199255", false); !errors.Is(err, annals.ErrTooLarge) {
		t.Errorf("error is %v, must be ErrTooLarge", err)
	}
}

func TestCheckRefusesWhatTheStoreWould(t *testing.T) {
	tests := []struct {
		op   op
		fits bool
	}{
		{op{kind: annals.KindPut, name: strings.Repeat("k", 64<<10), value: make([]byte, 100)}, true},
		{op{kind: annals.KindPut, name: strings.Repeat("k", 64<<10+1)}, false},
		{op{kind: annals.KindDelete, name: strings.Repeat("k", 64<<10+1)}, false},
		{op{kind: annals.KindPut, name: "k", value: make([]byte, 101)}, false},
		{op{kind: annals.KindSample, name: strings.Repeat("s", 255)}, true},
		{op{kind: annals.KindSample, name: strings.Repeat("s", 256)}, false},
		{op{kind: annals.KindSample, name: ""}, false},
	}
	for _, test := range tests {
		if err := test.op.check(100); (err == nil) != test.fits || err != nil && !errors.Is(err, annals.ErrTooLarge) {
			t.Errorf("kind %d, name of %d, value of %d: %v", test.op.kind, len(test.op.name), len(test.op.value), err)
		}
	}
}
