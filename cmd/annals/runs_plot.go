package main

import (
	"fmt"
	"math"
	"os"

	"github.com/annalsdb/annals"
	"github.com/guptarohit/asciigraph"
	"github.com/spf13/cobra"
	"golang.org/x/perf/benchmath"
	"golang.org/x/perf/benchunit"
	"golang.org/x/term"
)

type runsPlotFlags struct {
	metric string
	name   regexpFlag
	height int
}

func newRunsPlot() *cobra.Command {
	var f runsPlotFlags
	cmd := verb("plot DIR", "Draw how a metric has gone from run to run",
		func(cmd *cobra.Command, args []string) error { return runRunsPlot(cmd, args[0], args[1:], &f) })
	takesMore(cmd, "plot DIR [RUN...]")
	cmd.Long = `Plot draws the median of each benchmark in each run, oldest first, or in the runs that are
given, in their order. The status is 1 if fewer than two runs have the metric.`
	cmd.Example = `  annals runs plot data
  annals runs plot data --metric allocs/op --name Get
  annals runs plot data v1.2 v1.3 v1.4`
	cmd.Flags().StringVar(&f.metric, "metric", "", "the unit of the values to draw, such as ns/op (default: that of the first result)")
	cmd.Flags().Var(&f.name, "name", "only benchmarks whose name matches")
	cmd.Flags().IntVar(&f.height, "height", 15, "height of the chart in lines")
	return cmd
}

func runRunsPlot(cmd *cobra.Command, dir string, names []string, f *runsPlotFlags) error {
	if f.height < 2 || f.height > 200 {
		return usageError(cmd, fmt.Errorf("--height must be 2 to 200"))
	}
	return withReader(dir, func(reader *annals.Reader) error {
		if len(names) == 0 {
			for info, err := range annals.Journals(reader) {
				if err != nil {
					return err
				}
				names = append(names, info.Name)
			}
		}
		runs, err := readRuns(reader, dir, names)
		if err != nil {
			return err
		}
		tellOther(cmd, runs...)
		t := tabulate(runs, benchmath.DefaultThresholds.CompareAlpha, &f.name, tidyUnit(f.metric))
		if len(t.groups) == 0 {
			return nothingMeasured(f.metric, &f.name)
		}
		unit := tidyUnit(f.metric)
		if unit == "" {
			unit = t.groups[0].tables[0].unit
		}
		return drawRuns(cmd, t, unit, f.height)
	})
}

// runCurve is the medians of a benchmark by run; NaN where a run has none.
type runCurve struct {
	name    string
	medians []float64
}

// curveMarks tell curves apart, on paper too.
var curveMarks = []string{"●", "▲", "■", "◆", "○", "△", "□", "◇"}

func drawRuns(cmd *cobra.Command, t *tabulation, unit string, height int) error {
	curves, runs := t.curves(unit)
	if len(runs) < 2 {
		return answerNo("%d run has %s; a plot needs two", len(runs), plain(unit))
	}
	if len(curves) > len(curveMarks) {
		fmt.Fprintf(cmd.ErrOrStderr(), "%d benchmarks have %s, the first %d are drawn; --name picks others\n", len(curves), plain(unit), len(curveMarks))
		curves = curves[:len(curveMarks)]
	}
	var data [][]float64
	highest := math.Inf(-1)
	var chars []asciigraph.CharSet
	for i, c := range curves {
		data, chars = append(data, c.medians), append(chars, asciigraph.CreateCharSet(curveMarks[i]))
		for _, v := range c.medians {
			if !math.IsNaN(v) {
				highest = max(highest, v)
			}
		}
	}
	scale := benchunit.CommonScale([]float64{highest}, benchunit.ClassOf(unit))
	out := newOutput(cmd)
	fmt.Fprintln(out, asciigraph.PlotMany(data, asciigraph.Height(height), asciigraph.Width(runsChartWidth(cmd)), asciigraph.SeriesChars(chars...),
		asciigraph.Caption(plain(unit)+", medians by run"), asciigraph.YAxisValueFormatter(scale.Format),
		asciigraph.XAxisRange(1, float64(len(runs))), asciigraph.XAxisTickCount(min(max(len(runs), 2), 10)),
		asciigraph.XAxisValueFormatter(func(x float64) string { return fmt.Sprintf("%.0f", x) })))
	fmt.Fprintln(out)
	for i, c := range curves {
		fmt.Fprintf(out, "%s %s\n", curveMarks[i], plain(c.name))
	}
	for i, r := range runs {
		fmt.Fprintf(out, "%d %s, %s\n", i+1, printable(r.Name), localTime(r.Begun))
	}
	return out.Flush()
}

// curves returns the medians of a unit, and the runs that have any.
func (t *tabulation) curves(unit string) (curves []runCurve, runs []*benchRun) {
	has := make([]bool, len(t.runs))
	for _, g := range t.groups {
		for _, u := range g.tables {
			for at := range u.cells {
				has[at.run] = has[at.run] || u.unit == unit
			}
		}
	}
	for i, r := range t.runs {
		if has[i] {
			runs = append(runs, r)
		}
	}
	for _, g := range t.groups {
		for _, u := range g.tables {
			if u.unit != unit {
				continue
			}
			for _, row := range u.rows {
				c := runCurve{name: row}
				if len(t.groups) > 1 && g.pkg != "" {
					c.name = g.pkg + "." + row
				}
				for i := range t.runs {
					if !has[i] {
						continue
					}
					median := math.NaN()
					if cell := u.cells[cellAt{row, i}]; cell != nil {
						median = cell.Center
					}
					c.medians = append(c.medians, median)
				}
				curves = append(curves, c)
			}
		}
	}
	return curves, runs
}

// runsChartWidth is what a chart may take beside its axis.
func runsChartWidth(cmd *cobra.Command) int {
	const usual, axis = 80, 12
	if f, ok := cmd.OutOrStdout().(*os.File); ok && isTerminal(f) {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil {
			return max(width-axis, 20)
		}
	}
	return usual - axis
}
