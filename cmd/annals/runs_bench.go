package main

import (
	"math"
	"strings"

	"golang.org/x/perf/benchfmt"
)

// showBench writes the measurements of a run in the Go benchmark format.
func showBench(out *output, r *benchRun) error {
	w := benchfmt.NewWriter(out)
	for _, m := range r.measured {
		result := benchfmt.Result{Name: benchfmt.Name(oneWord(m.name)), Iters: max(m.iterations, 1)}
		for _, l := range m.config {
			if key := strings.ToLower(oneWord(l.key)); labelLine.MatchString(key + ": x") {
				result.SetConfig(key, strings.Join(strings.Fields(l.value), " "))
			}
		}
		for i := range result.Config {
			result.Config[i].File = true
		}
		for _, q := range m.values {
			result.Values = append(result.Values, benchfmt.Value{Value: q.value, Unit: oneWord(q.unit)})
		}
		if err := w.Write(&result); err != nil {
			return err
		}
	}
	return nil
}

// oneWord is text as a word, which names and units are in the Go benchmark format.
func oneWord(text string) string { return strings.Join(strings.Fields(plain(text)), "_") }

// finiteOrNil is a number for JSON, nil if JSON does not have it.
func finiteOrNil(n float64) *float64 {
	if math.IsInf(n, 0) || math.IsNaN(n) {
		return nil
	}
	return &n
}
