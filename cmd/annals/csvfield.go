package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// A csvField is a part of the values that is to be a column: val is the value itself,
// val.t its field t, val.disk.0.free goes on from there. A backslash takes its meaning
// from a dot.
type csvField struct {
	column string
	path   []string
}

func parseCSVField(text string) (csvField, error) {
	var path []string
	var name []byte
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '\\' && i+1 < len(text):
			i++
			name = append(name, text[i])
		case text[i] == '.':
			path = append(path, string(name))
			name = name[:0]
		default:
			name = append(name, text[i])
		}
	}
	path = append(path, string(name))
	for i, name := range path {
		if name == "" || i == 0 && name != "val" {
			return csvField{}, fmt.Errorf("--field must be val or begin with it, such as val.t or val.disk.0.free, not %q", text)
		}
	}
	if len(path) == 1 {
		return csvField{column: csvValue}, nil
	}
	return csvField{column: ownColumn(strings.Join(path[1:], ".")), path: path[1:]}, nil
}

// cell is the part of a value as a cell, "" where there is none.
func (f csvField) cell(value []byte) string {
	if len(f.path) > 0 && !json.Valid(value) {
		return ""
	}
	part := bytes.TrimSpace(value)
	for _, name := range f.path {
		if part = member(part, name); part == nil {
			return ""
		}
	}
	if len(f.path) == 0 {
		return string(value)
	}
	return cellText(part)
}

// member is a field of an object, the last one of that name, or an element of an
// array, nil where there is none. The value is valid JSON.
func member(value []byte, name string) (found []byte) {
	switch value[0] {
	case '{':
		walkObject(value, func(spelled, field []byte) error { // which fails only where this does
			if text, err := unquote(spelled); err == nil && string(text) == name {
				found = field
			}
			return nil
		})
	case '[':
		n, err := strconv.Atoi(name)
		if err != nil || n < 0 || strconv.Itoa(n) != name {
			return nil
		}
		rest := skipSpace(value[1:])
		for ; rest[0] != ']'; n-- {
			length := valueLen(rest)
			if n == 0 {
				return rest[:length]
			}
			if rest = skipSpace(rest[length:]); rest[0] == ',' {
				rest = skipSpace(rest[1:])
			}
		}
	}
	return found
}
