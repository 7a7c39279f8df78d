package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/annalsdb/annals"
)

// manyNumbers is how many fields a hint names.
const manyNumbers = 8

// numberHint is where the last sample of a series has numbers, for somebody who has
// asked for them where there are none; "" if it has none.
func numberHint(from annals.Sampler, series string, w annals.Window) string {
	w.Reverse, w.Limit = true, 1
	for sample, err := range from.Samples(series, w) {
		var value any
		if err != nil || json.Unmarshal(sample.Value, &value) != nil {
			return ""
		}
		switch paths := numberPaths(nil, "val", value); {
		case len(paths) == 0:
			return ""
		case len(paths) > manyNumbers:
			return fmt.Sprintf("the last one has numbers at %s and more", strings.Join(paths[:manyNumbers], ", "))
		default:
			return "the last one has numbers at " + strings.Join(paths, ", ")
		}
	}
	return ""
}

// numberPaths appends where in a value there are numbers, as --field takes it, and ends
// soon after manyNumbers.
func numberPaths(paths []string, path string, value any) []string {
	switch v := value.(type) {
	case float64:
		return append(paths, path)
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if len(paths) <= manyNumbers && name != "" {
				paths = numberPaths(paths, path+"."+escapeField.Replace(name), v[name])
			}
		}
	case []any:
		for i := range min(len(v), manyNumbers+1) {
			if len(paths) <= manyNumbers {
				paths = numberPaths(paths, path+"."+strconv.Itoa(i), v[i])
			}
		}
	}
	return paths
}

var escapeField = strings.NewReplacer(`\`, `\\`, `.`, `\.`)
