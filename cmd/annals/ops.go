package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/annalsdb/annals"
)

// An op is one line of the dialect that load reads and that scan, samples, tail
// and export write: a record of the log without its checksum. It has one of the
// fields key, k64 and ser, one of val, txt, b64 and del, and possibly exp, at and
// more. The fields seq and dur, which only the log itself can give, are ignored.
type op struct {
	kind    annals.Kind
	name    string // the key or the series
	value   []byte
	at      time.Time // of a sample; zero for now
	expires time.Time // of a put; zero for never
	more    bool      // the next op belongs to the same commit
}

// addTo adds the op to a batch.
func (o *op) addTo(b *annals.Batch) {
	switch o.kind {
	case annals.KindDelete:
		b.Delete(o.name)
	case annals.KindSample:
		if o.at.IsZero() {
			b.Append(o.name, o.value)
		} else {
			b.Append(o.name, o.value, annals.At(o.at))
		}
	default:
		if o.expires.IsZero() {
			b.Put(o.name, o.value)
		} else {
			b.Put(o.name, o.value, annals.ExpiresAt(o.expires))
		}
	}
}

// check refuses what the store would refuse. The store does too, but only once
// later ops may be on their way, and those must not overtake this one.
func (o *op) check(maxValue int) error {
	switch {
	case o.kind == annals.KindSample && (o.name == "" || len(o.name) > 255):
		return fmt.Errorf("%w: the name of a series has 1 to 255 bytes, this one %d", annals.ErrTooLarge, len(o.name))
	case o.kind != annals.KindSample && len(o.name) > 64<<10:
		return fmt.Errorf("%w: a key has at most 64 KiB, this one %d bytes", annals.ErrTooLarge, len(o.name))
	case len(o.value) > maxValue:
		return fmt.Errorf("%w: the value has %d bytes, more than the %d of --max-value", annals.ErrTooLarge, len(o.value), maxValue)
	}
	return nil
}

// parseOp reads one line. The op's value may be a part of it.
func parseOp(line []byte) (op, error) {
	fields, err := parseFields(line)
	if err != nil {
		return op{}, err
	}
	var o op
	if err := o.setName(&fields); err != nil {
		return op{}, err
	}
	if err := o.setValue(&fields); err != nil {
		return op{}, err
	}
	if raw := fields[fieldExp]; raw != nil {
		if o.kind != annals.KindPut {
			return op{}, errors.New(`"exp" is for a key that gets a value`)
		}
		if o.expires, err = parseTime(raw, true); err != nil {
			return op{}, fmt.Errorf(`"exp": %w`, err)
		}
	}
	if raw := fields[fieldAt]; raw != nil {
		if o.kind != annals.KindSample {
			return op{}, errors.New(`"at" is for a sample of a series`)
		}
		if o.at, err = parseTime(raw, false); err != nil {
			return op{}, fmt.Errorf(`"at": %w`, err)
		}
	}
	if raw := fields[fieldMore]; raw != nil {
		o.more = string(raw) == "true"
		if !o.more && string(raw) != "false" {
			return op{}, errors.New(`"more" must be true or false`)
		}
	}
	return o, nil
}

// The fields of a line, in the order in which the log has them.
const (
	fieldSeq = iota
	fieldDur
	fieldMore
	fieldKey
	fieldK64
	fieldSer
	fieldExp
	fieldAt
	fieldVal
	fieldTxt
	fieldB64
	fieldDel
	fieldCount
)

var fieldNames = [fieldCount]string{"seq", "dur", "more", "key", "k64", "ser", "exp", "at", "val", "txt", "b64", "del"}

// lineFields holds the bytes of each field's value as they stand in the line,
// nil for a field that is not there.
type lineFields [fieldCount][]byte

// parseFields finds the fields of a line.
func parseFields(line []byte) (lineFields, error) {
	var fields lineFields
	if !json.Valid(line) {
		var v json.RawMessage
		return fields, fmt.Errorf("not JSON: %w", json.Unmarshal(line, &v))
	}
	line = bytes.TrimSpace(line)
	if line[0] != '{' {
		return fields, errors.New("not a JSON object")
	}
	return fields, walkObject(line, fields.set)
}

// set takes one field; its name is still in quotes.
func (f *lineFields) set(name, value []byte) error {
	for i := range f {
		if fieldNames[i] != string(name[1:len(name)-1]) {
			continue
		}
		if f[i] != nil {
			return fmt.Errorf("field %s comes twice", name)
		}
		f[i] = value
		return nil
	}
	return fmt.Errorf("unknown field %s", name)
}

// walkObject calls fn with the name and the value of each field of a JSON object
// as they stand there; the object must be valid. Walking by hand keeps every
// value's bytes, shows fields that come twice, and costs less than decoding.
func walkObject(object []byte, fn func(name, value []byte) error) error {
	rest := skipSpace(object[1:])
	for rest[0] != '}' {
		if rest[0] == ',' {
			rest = skipSpace(rest[1:])
		}
		n := valueLen(rest)
		name := rest[:n]
		rest = skipSpace(rest[n:])
		rest = skipSpace(rest[1:]) // the colon
		n = valueLen(rest)
		if err := fn(name, rest[:n]); err != nil {
			return err
		}
		rest = skipSpace(rest[n:])
	}
	return nil
}

func skipSpace(b []byte) []byte { return bytes.TrimLeft(b, " \t\r\n") }

// valueLen returns the length of the JSON value that valid JSON begins with.
func valueLen(b []byte) int {
	switch b[0] {
	case '"':
		return stringLen(b)
	case '{', '[':
		depth := 0
		for i := 0; ; i++ {
			switch b[i] {
			case '"':
				i += stringLen(b[i:]) - 1
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
	}
	return bytes.IndexAny(b, ",}] \t\r\n")
}

// stringLen returns the length of the JSON string that b begins with, quotes
// included.
func stringLen(b []byte) int {
	for i := 1; ; i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
}

// setName takes the key or series from its field.
func (o *op) setName(fields *lineFields) error {
	i, err := fields.one(fieldKey, fieldK64, fieldSer)
	if err != nil {
		return err
	}
	if i == fieldSer {
		o.kind = annals.KindSample
	} else {
		o.kind = annals.KindPut
	}
	decode := unquote
	if i == fieldK64 {
		decode = unquoteBase64
	}
	name, err := decode(fields[i])
	if err != nil {
		return fmt.Errorf("%q: %w", fieldNames[i], err)
	}
	o.name = string(name)
	return nil
}

// setValue takes the value from its field.
func (o *op) setValue(fields *lineFields) error {
	i, err := fields.one(fieldVal, fieldTxt, fieldB64, fieldDel)
	if err != nil {
		return err
	}
	switch i {
	case fieldVal:
		o.value = fields[i]
	case fieldTxt:
		o.value, err = unquote(fields[i])
	case fieldB64:
		o.value, err = unquoteBase64(fields[i])
	case fieldDel:
		if o.kind == annals.KindSample {
			return errors.New("a sample cannot be deleted")
		}
		if string(fields[i]) != "true" {
			return errors.New(`"del" must be true`)
		}
		o.kind = annals.KindDelete
	}
	if err != nil {
		return fmt.Errorf("%q: %w", fieldNames[i], err)
	}
	return nil
}

// one returns which one of several fields is there.
func (f *lineFields) one(candidates ...int) (int, error) {
	found := -1
	for _, i := range candidates {
		if f[i] == nil {
			continue
		}
		if found >= 0 {
			return 0, fmt.Errorf("both %q and %q", fieldNames[found], fieldNames[i])
		}
		found = i
	}
	if found < 0 {
		names := make([]string, len(candidates))
		for n, i := range candidates {
			names[n] = strconv.Quote(fieldNames[i])
		}
		return 0, fmt.Errorf("none of %s", strings.Join(names, ", "))
	}
	return found, nil
}

// unquote returns the text of a JSON string. It refuses what encoding/json
// replaces by U+FFFD, since a key that was silently changed is another key.
func unquote(raw []byte) ([]byte, error) {
	if raw[0] != '"' {
		return nil, errors.New("must be a string")
	}
	if !utf8.Valid(raw) {
		return nil, errors.New("not UTF-8; use base64 (k64, b64) for other bytes")
	}
	inner := raw[1 : len(raw)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return inner, nil
	}
	if loneSurrogate(inner) {
		return nil, errors.New(`has half of a surrogate pair (\ud800 to \udfff), which is no text`)
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return []byte(s), err
}

// loneSurrogate reports whether a \u escape stands for half of a pair.
func loneSurrogate(s []byte) bool {
	unit := func(i int) uint64 { // the UTF-16 unit of the escape at i, 0 for none
		if i+6 > len(s) || s[i] != '\\' || s[i+1] != 'u' {
			return 0
		}
		u, _ := strconv.ParseUint(string(s[i+2:i+6]), 16, 16)
		return u
	}
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			continue
		}
		switch u := unit(i); {
		case u == 0:
			i++ // the escaped character
		case u>>10 == 0xD800>>10 && unit(i+6)>>10 == 0xDC00>>10:
			i += 11
		case u>>11 == 0xD800>>11:
			return true
		}
	}
	return false
}

func unquoteBase64(raw []byte) ([]byte, error) {
	text, err := unquote(raw)
	if err != nil {
		return nil, err
	}
	value, err := base64.StdEncoding.AppendDecode([]byte{}, text)
	if err != nil {
		return nil, errors.New("not base64")
	}
	return value, nil
}

// parseTime reads Unix seconds.
func parseTime(raw []byte, roundUp bool) (time.Time, error) {
	micros, err := parseMicros(string(raw), roundUp)
	if err != nil {
		return time.Time{}, err
	}
	return time.UnixMicro(micros), nil
}

// maxSeconds bounds the times that a log can hold: 2^53 microseconds.
const maxSeconds = (1 << 53) / 1_000_000

// parseMicros reads Unix seconds with any number of decimals as microseconds. It
// works in decimal, so that what the log spells comes back exactly.
func parseMicros(s string, roundUp bool) (int64, error) {
	digits, negative := strings.CutPrefix(s, "-")
	if strings.ContainsAny(s, "eE") {
		f, err := strconv.ParseFloat(digits, 64)
		if err != nil {
			return 0, errNoTime
		}
		digits = strconv.FormatFloat(f, 'f', -1, 64)
	}
	whole, fraction, _ := strings.Cut(digits, ".")
	if strings.Trim(whole+fraction, "0123456789") != "" || whole == "" {
		return 0, errNoTime
	}
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || seconds > maxSeconds {
		return 0, fmt.Errorf("%w: %s seconds", annals.ErrTooLarge, s)
	}
	padded := fraction + "000000"
	micros, _ := strconv.ParseInt(padded[:6], 10, 64)
	micros += seconds * 1_000_000
	exact := strings.Trim(padded[6:], "0") == ""
	if negative {
		micros = -micros
	}
	switch {
	case !exact && roundUp && !negative:
		micros++
	case !exact && !roundUp && negative:
		micros--
	}
	return micros, nil
}

var errNoTime = errors.New("no time in Unix seconds, such as 1732284000.5")
