package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/annalsdb/annals"
	"github.com/spf13/cobra"
	"golang.org/x/perf/benchmath"
	"golang.org/x/perf/benchunit"
)

type runsCompareFlags struct {
	alpha  float64
	name   regexpFlag
	metric string
	asJSON bool
}

func newRunsCompare() *cobra.Command {
	var f runsCompareFlags
	cmd := verb("compare DIR A B", "Compare runs: medians, confidence intervals, significance",
		func(cmd *cobra.Command, args []string) error { return runRunsCompare(cmd, args[0], args[1:], &f) })
	takesMore(cmd, "compare DIR A B [RUN...]")
	cmd.Long = `Compare prints tables as benchstat does: for each benchmark the median of each run with the
bounds of its 95 % confidence interval, and how much it differs from run A, or ~ where that
may well be chance, by the Mann-Whitney U test. Six samples of each, as of "go test -count 6",
are the least that give an interval.

Labels that differ within a run, such as "size" in JSON lines, tell its benchmarks apart.`
	cmd.Example = `  annals runs compare data v1.3 v1.4
  annals runs compare data v1.3 v1.4 --metric ns/op --name '^Get'
  annals runs compare data v1.3 v1.4 --json | jq 'select(.p < 0.05 and .delta > 0.05)'`
	cmd.Flags().Float64Var(&f.alpha, "alpha", 0.05, "a difference counts if its p-value is at most this")
	cmd.Flags().Var(&f.name, "name", "only benchmarks whose name matches")
	cmd.Flags().StringVar(&f.metric, "metric", "", "only values of this unit, such as ns/op")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "one JSON object a line, for each benchmark and unit of each run")
	return cmd
}

// takesMore lets a command take any number of further arguments.
func takesMore(cmd *cobra.Command, use string) {
	check := cmd.Args
	names := strings.Count(strings.TrimSuffix(cmd.Use, " [flags]"), " ")
	cmd.Use = use + " [flags]"
	cmd.Args = func(cmd *cobra.Command, args []string) error { return check(cmd, args[:min(len(args), names)]) }
}

func runRunsCompare(cmd *cobra.Command, dir string, names []string, f *runsCompareFlags) error {
	if f.alpha < 0 || f.alpha > 1 {
		return usageError(cmd, fmt.Errorf("--alpha must be 0 to 1"))
	}
	return withReader(dir, func(reader *annals.Reader) error {
		runs, err := readRuns(reader, dir, names)
		if err != nil {
			return err
		}
		tellOther(cmd, runs...)
		t := tabulate(runs, f.alpha, &f.name, tidyUnit(f.metric))
		if len(t.groups) == 0 {
			return nothingMeasured(f.metric, &f.name)
		}
		out := newOutput(cmd)
		if f.asJSON {
			return out.closing(t.printJSON(out))
		}
		t.print(out)
		return out.Flush()
	})
}

func readRuns(reader *annals.Reader, dir string, names []string) (runs []*benchRun, err error) {
	for _, name := range names {
		r, err := readRun(reader, dir, name)
		if err != nil {
			return nil, err
		}
		runs = append(runs, r)
	}
	return runs, nil
}

func tidyUnit(unit string) string {
	_, tidy := benchunit.Tidy(1, unit)
	return tidy
}

// nothingMeasured is the answer where no result is left to show.
func nothingMeasured(metric string, name *regexpFlag) error {
	if metric == "" && name.Regexp == nil {
		return &noError{"there are no measurements"}
	}
	return &noError{"no measurement has this name and metric"}
}

// printJSON writes a line for each benchmark, unit and run. Numbers that JSON does
// not have, an interval without an end, are left out.
func (t *tabulation) printJSON(out *output) error {
	type line struct {
		Run    string   `json:"run"`
		Pkg    string   `json:"pkg,omitempty"`
		Name   string   `json:"name"`
		Unit   string   `json:"unit"`
		N      int      `json:"n"`
		Median float64  `json:"median"`
		Low    *float64 `json:"low,omitempty"`
		High   *float64 `json:"high,omitempty"`
		Delta  *float64 `json:"delta,omitempty"` // of the first run's median
		P      *float64 `json:"p,omitempty"`
	}
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	for _, g := range t.groups {
		for _, u := range g.tables {
			for _, row := range u.rows {
				for i, r := range t.runs {
					c := u.cells[cellAt{row, i}]
					if c == nil {
						continue
					}
					l := line{Run: r.Name, Pkg: g.pkg, Name: row, Unit: u.unit, N: len(c.Values), Median: c.Center, Low: finiteOrNil(c.Lo), High: finiteOrNil(c.Hi)}
					if base := u.cells[cellAt{row, 0}]; i > 0 && base != nil {
						l.P = finiteOrNil(benchmath.AssumeNothing.Compare(base.Sample, c.Sample).P)
						l.Delta = finiteOrNil(c.Center/base.Center - 1)
					}
					if err := enc.Encode(l); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

type runsShowFlags struct {
	asJSON bool
	bench  bool
	follow bool
}

func newRunsShow() *cobra.Command {
	var f runsShowFlags
	cmd := verb("show DIR NAME", "Show a run: its medians, or all its results",
		func(cmd *cobra.Command, args []string) error { return runRunsShow(cmd, args[0], args[1], &f) })
	cmd.Long = `Show prints how far a run is and the medians of its benchmarks. With --json it prints each
result as recorded, {"key":K,"at":T,"result":R}; with --follow also those that come, until all
that are expected are there, or Ctrl-C. The status is 1 if there is no such run.`
	cmd.Example = `  annals runs show data v1.4
  annals runs show data v1.4 --bench > v1.4.txt
  annals runs show data nightly --follow | jq -c .key`
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print each result as one JSON object a line, in the order of recording")
	cmd.Flags().BoolVar(&f.bench, "bench", false, `print the measurements as "go test -bench" does, for benchstat`)
	cmd.Flags().BoolVarP(&f.follow, "follow", "f", false, "like --json, and go on with what comes")
	cmd.MarkFlagsMutuallyExclusive("json", "bench")
	cmd.MarkFlagsMutuallyExclusive("follow", "bench")
	return cmd
}

func runRunsShow(cmd *cobra.Command, dir, name string, f *runsShowFlags) error {
	return withReader(dir, func(reader *annals.Reader) error {
		out := newOutput(cmd)
		if f.asJSON || f.follow {
			return out.closing(showResults(cmd, out, reader, dir, name, f.follow))
		}
		r, err := readRun(reader, dir, name)
		if err != nil {
			return err
		}
		tellOther(cmd, r)
		if f.bench {
			return out.closing(showBench(out, r))
		}
		fmt.Fprintf(out, "run %s: results %s, begun %s, the last at %s\n", printable(r.Name), progressOf(r.JournalInfo), localTime(r.Begun), localTime(r.Last))
		fmt.Fprintf(out, "config %s, %.19s\n", clipped(string(r.Config), 200), plain(r.Hash))
		if t := tabulate([]*benchRun{r}, benchmath.DefaultThresholds.CompareAlpha, &regexpFlag{}, ""); len(t.groups) > 0 {
			fmt.Fprintln(out)
			t.print(out)
		}
		return out.Flush()
	})
}

// showResults prints results as they were recorded.
func showResults(cmd *cobra.Command, out *output, reader *annals.Reader, dir, name string, follow bool) error {
	journal, err := annals.ReadJournal(reader, name)
	if err != nil {
		return noSuchRun(err, name, dir)
	}
	info, err := journal.Info()
	if err != nil {
		return err
	}
	if !follow {
		for result, err := range journal.Results() {
			if err == nil {
				err = writeResult(out, &result)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	shown := 0
	for result, err := range journal.Watch(cmd.Context()) {
		switch {
		case cmd.Context().Err() != nil:
			return nil // Ctrl-C is how following ends
		case errors.Is(err, annals.ErrNotFound):
			return answerNo("run %q was deleted", name)
		case err != nil:
			return err
		}
		if err := writeResult(out, &result); err != nil {
			return err
		}
		if shown++; shown < info.Done {
			continue
		}
		if err := out.Flush(); err != nil { // from now on somebody waits for each
			return err
		}
		if now, err := journal.Info(); err == nil && now.Expected > 0 && shown >= now.Expected {
			return nil
		}
	}
	return nil
}

func writeResult(out *output, r *annals.Result) error {
	return out.object(func(dst []byte) []byte {
		return fmt.Appendf(dst, `{"key":%s,"at":%s,"result":%s}`, jsonOf(r.Key), unixSeconds(r.At), r.Value)
	})
}
