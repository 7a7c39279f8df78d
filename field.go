package annals

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/annalsdb/annals/segment"
)

// fieldPath leads to a part of a value: the names on the way, none for the value
// itself.
type fieldPath []string

// parseField reads a path such as val.disk.0.free.
func parseField(text string) (fieldPath, error) {
	var names []string
	name := []byte{}
	escaped := false
	for i := range len(text) {
		switch c := text[i]; {
		case escaped || c != '\\' && c != '.':
			name, escaped = append(name, c), false
		case c == '\\':
			escaped = true
		default:
			names, name = append(names, string(name)), name[:0]
		}
	}
	names = append(names, string(name))
	switch {
	case escaped:
		return nil, fmt.Errorf("annals: field %q ends with a backslash, which must stand before a dot or a backslash of a name", text)
	case names[0] != "val":
		return nil, fmt.Errorf("annals: field %q must begin with val: val is the value itself, val.t its field t", text)
	}
	for _, name := range names {
		if name == "" {
			return nil, fmt.Errorf("annals: field %q has an empty name; before a dot in a name stands a backslash", text)
		}
	}
	return names[1:], nil
}

// number is the number at the path in a value; false if the value is not kept as
// JSON, has nothing there, or something else than a number that a float64 can hold.
func (p fieldPath) number(value []byte) (float64, bool) {
	if !segment.IsJSON(value) {
		return 0, false
	}
	part := bytes.TrimLeft(value, " ")
	for _, name := range p {
		switch {
		case part[0] == '{':
			part = member(part, name)
		case part[0] == '[':
			part = element(part, name)
		default:
			return 0, false
		}
		if part == nil {
			return 0, false
		}
	}
	if c := part[0]; c != '-' && (c < '0' || c > '9') {
		return 0, false
	}
	x, err := strconv.ParseFloat(string(part[:valueEnd(part)]), 64)
	if err != nil { // beyond float64
		return 0, false
	}
	return x, true
}

// member is what follows behind a name in an object, from its value on; nil if it is
// not there. Of a name that comes twice the last one counts, as for encoding/json, jq
// and Python. JSON that segment.IsJSON has let pass is walked here and below.
func member(object []byte, name string) (found []byte) {
	rest := bytes.TrimLeft(object[1:], " ")
	for rest[0] != '}' {
		rest = bytes.TrimLeft(rest, ", ")
		end := valueEnd(rest)
		spelled := rest[1 : end-1]
		rest = bytes.TrimLeft(rest[end:], ": ")
		if string(spelled) == name || bytes.IndexByte(spelled, '\\') >= 0 && unescaped(spelled) == name {
			found = rest
		}
		rest = bytes.TrimLeft(rest[valueEnd(rest):], " ")
	}
	return found
}

// unescaped is a JSON string, given without its quotes, as text.
func unescaped(spelled []byte) (text string) {
	// IsJSON has seen to it that this can't fail.
	_ = json.Unmarshal(append(append([]byte{'"'}, spelled...), '"'), &text)
	return text
}

// element is an array from its element at an index on; nil if it has none there.
func element(array []byte, index string) []byte {
	n, err := strconv.ParseUint(index, 10, 31)
	if err != nil || strconv.FormatUint(n, 10) != index {
		return nil
	}
	rest := bytes.TrimLeft(array[1:], " ")
	for ; rest[0] != ']'; n-- {
		if n == 0 {
			return rest
		}
		rest = bytes.TrimLeft(rest[valueEnd(rest):], ", ")
	}
	return nil
}

// valueEnd is where the value that JSON begins with ends.
func valueEnd(b []byte) int {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			for i++; b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
			continue
		case '}', ']':
			depth--
		default:
			if depth == 0 {
				if n := bytes.IndexAny(b[i:], ",}] "); n >= 0 {
					return i + n
				}
				return len(b)
			}
			continue
		}
		if depth == 0 {
			return i + 1
		}
	}
	return len(b)
}
