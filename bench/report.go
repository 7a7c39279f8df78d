package main

import (
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report is what one run of the harness has found.
type report struct {
	At       time.Time
	Took     string
	Version  string // of annals
	Machine  string
	Scale    string
	rows     []row
	outcomes []outcome
}

// row is a workload with the median of each contestant.
type row struct {
	workload, unit string
	medians        map[string]float64
	p99            map[string]float64
}

func newReport(h *harness, begun time.Time) *report {
	rep := &report{
		At: begun, Took: time.Since(begun).Round(time.Second).String(), Version: version(), Machine: machine(), Scale: h.describe(),
		outcomes: judge(h.results, goals()),
	}
	rep.rows = rows(h.results)
	return rep
}

func machine() string {
	return fmt.Sprintf("%s/%s, %d processors, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
}

// describe says how much is measured.
func (h *harness) describe() string {
	return fmt.Sprintf("%d keys of 16 B, values of %d B, %d rounds of %v", h.Keys, h.Value, h.rounds, h.For)
}

func version() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// rows returns the workloads in the order in which they were run.
func rows(results []result) (all []row) {
	values, p99s := map[[2]string][]float64{}, map[[2]string][]float64{}
	for _, r := range results {
		if !slices.ContainsFunc(all, func(x row) bool { return x.workload == r.Workload }) {
			all = append(all, row{r.Workload, r.Unit, map[string]float64{}, map[string]float64{}})
		}
		at := [2]string{r.Workload, r.Contestant}
		values[at] = append(values[at], r.Value)
		if r.P99 > 0 {
			p99s[at] = append(p99s[at], float64(r.P99))
		}
	}
	for at, v := range values {
		i := slices.IndexFunc(all, func(x row) bool { return x.workload == at[0] })
		all[i].medians[at[1]] = median(v)
		if p := p99s[at]; p != nil {
			all[i].p99[at[1]] = median(p)
		}
	}
	return all
}

// columns are the contestants in the order of the table.
func columns(all []row) (names []string) {
	names = []string{"annals", "floor"}
	for _, p := range peers[1:] {
		names = append(names, p.name)
	}
	for _, a := range appenders[1:] {
		names = append(names, a.name)
	}
	return slices.DeleteFunc(names, func(name string) bool {
		return !slices.ContainsFunc(all, func(r row) bool { _, ok := r.medians[name]; return ok })
	})
}

// print writes the tables as Markdown, which is readable as it is.
func (rep *report) print(w io.Writer) {
	fmt.Fprintf(w, "annals %s, %s\n%s; %s, took %s\n\n", rep.Version, rep.At.Format(time.DateTime), rep.Machine, rep.Scale, rep.Took)
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	names := columns(rep.rows)
	fmt.Fprintf(t, "| workload\t| unit\t| %s\t|\n| ---\t| ---\t%s|\n", strings.Join(names, "\t| "), strings.Repeat("| ---:\t", len(names)))
	for _, r := range rep.rows {
		fmt.Fprintf(t, "| %s\t| %s\t", r.workload, r.unit)
		for _, name := range names {
			cell := ""
			if v, ok := r.medians[name]; ok {
				cell = short(v)
			}
			fmt.Fprintf(t, "| %s\t", cell)
		}
		fmt.Fprintln(t, "|")
	}
	fmt.Fprint(t, "\n")
	fmt.Fprintf(t, "| goal\t| target\t| measured\t| \t|\n| ---\t| ---:\t| ---:\t| ---\t|\n")
	for _, o := range rep.outcomes {
		fmt.Fprintf(t, "| %s\t| %s\t| %s\t| %s\t|\n", o.name, o.targetText(), strings.TrimSpace(short(o.value)+" "+o.unit), o.verdict())
	}
	t.Flush()
}

func (o *outcome) targetText() string {
	sign := ">="
	if o.atMost {
		sign = "<="
	}
	return strings.TrimSpace(fmt.Sprintf("%s %g %s", sign, o.target, o.unit))
}

func (o *outcome) verdict() string {
	if o.met {
		return "met"
	}
	return "NOT MET"
}

// short is a number with three digits that matter.
func short(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.3gM", v/1e6)
	case v >= 1e4:
		return fmt.Sprintf("%.3gk", v/1e3)
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}
