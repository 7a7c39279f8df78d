package annals

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// canonicalConfig is a configuration as JSON whose fields are in order, so that
// equal ones have equal hashes, and its hash.
func canonicalConfig(config any) (canonical json.RawMessage, hash string, err error) {
	text, err := encodeJSON(config)
	if err != nil {
		return nil, "", err
	}
	var v any
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber() // or large integers would lose digits
	if err := dec.Decode(&v); err != nil {
		return nil, "", err
	}
	if canonical, err = encodeJSON(v); err != nil { // maps are encoded in the order of their keys
		return nil, "", err
	}
	return canonical, fmt.Sprintf("sha256:%x", sha256.Sum256(canonical)), nil
}

// check compares the journal's configuration with the one given.
func (h *journalHead) check(name, hash string, config json.RawMessage) error {
	if h.Hash == hash {
		return nil
	}
	return &ConfigError{Journal: name, Have: h.Hash, Given: hash, Differences: differences(h.Config, config)}
}

// How much of two configurations an error shows.
const (
	shownFields = 3
	shownBytes  = 60
)

// differences says where two configurations differ.
func differences(have, given json.RawMessage) string {
	var a, b map[string]json.RawMessage
	if json.Unmarshal(have, &a) != nil || json.Unmarshal(given, &b) != nil || a == nil || b == nil {
		return fmt.Sprintf("it was %s, now it is %s", clip(have), clip(given))
	}
	fields := maps.Clone(a)
	maps.Copy(fields, b)
	var list []string
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		if !bytes.Equal(a[field], b[field]) {
			list = append(list, fmt.Sprintf("%q was %s, now it is %s", field, clip(a[field]), clip(b[field])))
		}
	}
	if len(list) > shownFields {
		list = append(list[:shownFields], fmt.Sprintf("and %d more", len(list)-shownFields))
	}
	return strings.Join(list, ", ")
}

// clip is a value, or the beginning of a long one.
func clip(v json.RawMessage) string {
	switch {
	case v == nil:
		return "missing"
	case len(v) > shownBytes:
		return strings.ToValidUTF8(string(v[:shownBytes]), "") + "…"
	}
	return string(v)
}
