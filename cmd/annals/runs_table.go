package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/perf/benchmath"
	"golang.org/x/perf/benchunit"
)

// medianConfidence is that of the intervals around medians.
const medianConfidence = 0.95

// tabulation is the results of some runs, side by side: a group for each package, in
// it a table for each unit, with a row for each benchmark and a column for each run.
type tabulation struct {
	runs       []*benchRun
	thresholds benchmath.Thresholds
	groups     []*tableGroup
}

type tableGroup struct {
	pkg    string
	labels []string // lines above the tables
	tables []*unitTable
}

type unitTable struct {
	unit    string // tidied: sec/op, not ns/op
	rows    []string
	has     map[string]bool // of rows
	samples map[cellAt][]float64
	cells   map[cellAt]*tableCell
}

// cellAt is a row and the number of a run.
type cellAt struct {
	row string
	run int
}

// tableCell is the sample of a benchmark in a run.
type tableCell struct {
	*benchmath.Sample
	benchmath.Summary
}

// tabulate gathers the results whose name and tidied unit are wanted.
func tabulate(runs []*benchRun, alpha float64, name *regexpFlag, unit string) *tabulation {
	t := &tabulation{runs: runs, thresholds: benchmath.DefaultThresholds}
	t.thresholds.CompareAlpha = alpha
	apart := tellingApart(runs)
	for i, r := range runs {
		for _, m := range r.measured {
			row := rowOf(&m, apart)
			if !name.matches(row) {
				continue
			}
			for _, q := range m.values {
				if value, tidy := benchunit.Tidy(q.value, q.unit); unit == "" || unit == tidy {
					t.add(m.label("pkg"), tidy, cellAt{row, i}, value)
				}
			}
		}
	}
	for _, g := range t.groups {
		g.labels = t.labelsOf(g.pkg, apart)
		for _, table := range g.tables {
			table.summarize(&t.thresholds)
		}
	}
	return t
}

// tellingApart returns the labels that differ within a run: they tell its benchmarks
// apart, and belong to their names. Those that differ between runs only, such as a
// commit, are what the runs are compared for.
func tellingApart(runs []*benchRun) (keys []string) {
	for _, r := range runs {
		seen, uses := map[string]string{}, map[string]int{}
		for _, m := range r.measured {
			for _, l := range m.config {
				if l.key == "pkg" {
					continue // has groups of its own
				}
				have, known := seen[l.key]
				if known && have != l.value && !slices.Contains(keys, l.key) {
					keys = append(keys, l.key)
				}
				seen[l.key] = l.value
				uses[l.key]++
			}
		}
		for key, n := range uses { // some have it and some have not
			if n < len(r.measured) && !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
	}
	slices.Sort(keys)
	return keys
}

func (m *measured) label(key string) string {
	for _, l := range m.config {
		if l.key == key {
			return l.value
		}
	}
	return ""
}

func rowOf(m *measured, apart []string) string {
	row := m.name
	for _, key := range apart {
		if value := m.label(key); value != "" {
			row += " " + key + "=" + value
		}
	}
	return row
}

func (t *tabulation) add(pkg, unit string, at cellAt, value float64) {
	i := slices.IndexFunc(t.groups, func(g *tableGroup) bool { return g.pkg == pkg })
	if i < 0 {
		i = len(t.groups)
		t.groups = append(t.groups, &tableGroup{pkg: pkg})
	}
	g := t.groups[i]
	j := slices.IndexFunc(g.tables, func(u *unitTable) bool { return u.unit == unit })
	if j < 0 {
		j = len(g.tables)
		g.tables = append(g.tables, &unitTable{unit: unit, has: map[string]bool{}, samples: map[cellAt][]float64{}, cells: map[cellAt]*tableCell{}})
	}
	table := g.tables[j]
	if !table.has[at.row] {
		table.has[at.row] = true
		table.rows = append(table.rows, at.row)
	}
	table.samples[at] = append(table.samples[at], value)
}

// labelsOf returns the lines above a group's tables: the labels that all results of
// a run have in common.
func (t *tabulation) labelsOf(pkg string, apart []string) (lines []string) {
	var keys []string
	values := map[string][]string{} // by key, one for each run
	for i, r := range t.runs {
		for _, m := range r.measured {
			if m.label("pkg") != pkg {
				continue
			}
			for _, l := range m.config {
				if slices.Contains(apart, l.key) {
					continue
				}
				if values[l.key] == nil {
					keys = append(keys, l.key)
					values[l.key] = make([]string, len(t.runs))
				}
				values[l.key][i] = l.value
			}
		}
	}
	for _, key := range keys {
		line := key + ": "
		if same := slices.Compact(slices.Clone(values[key])); len(same) == 1 {
			lines = append(lines, line+same[0])
			continue
		}
		for i, value := range values[key] {
			if i > 0 {
				line += ", "
			}
			line += fmt.Sprintf("%s in %s", orNone(value), printable(t.runs[i].Name))
		}
		lines = append(lines, line)
	}
	return lines
}

func orNone(value string) string {
	if value == "" {
		return "none"
	}
	return value
}

func (u *unitTable) summarize(thresholds *benchmath.Thresholds) {
	for at, values := range u.samples {
		sample := benchmath.NewSample(values, thresholds)
		u.cells[at] = &tableCell{sample, benchmath.AssumeNothing.Summary(sample, medianConfidence)}
	}
}

// geomean is the geometric mean of a run's medians; 0 if one of them has none.
func (u *unitTable) geomean(run int) float64 {
	sum, n := 0.0, 0
	for _, row := range u.rows {
		c := u.cells[cellAt{row, run}]
		if c == nil {
			continue
		}
		if c.Center <= 0 {
			return 0
		}
		sum += math.Log(c.Center)
		n++
	}
	if n == 0 {
		return 0
	}
	return math.Exp(sum / float64(n))
}

// change is the geometric mean of the ratios of a run's medians to the first run's;
// NaN where it has none.
func (u *unitTable) change(run int) float64 {
	sum, n := 0.0, 0
	for _, row := range u.rows {
		base, c := u.cells[cellAt{row, 0}], u.cells[cellAt{row, run}]
		switch {
		case base == nil || c == nil:
			continue
		case base.Center == 0 && c.Center == 0: // no change
		case base.Center <= 0 || c.Center <= 0:
			return math.NaN()
		default:
			sum += math.Log(c.Center / base.Center)
		}
		n++
	}
	return math.Exp(sum / float64(n)) // NaN of none
}

// sameRows tells whether two runs have the same benchmarks.
func (u *unitTable) sameRows(a, b int) bool {
	for _, row := range u.rows {
		if (u.cells[cellAt{row, a}] == nil) != (u.cells[cellAt{row, b}] == nil) {
			return false
		}
	}
	return true
}

// print writes everything as text.
func (t *tabulation) print(out *output) {
	var said []string
	for i, g := range t.groups {
		if i > 0 {
			fmt.Fprintln(out)
		}
		for _, line := range g.labels {
			if !slices.Contains(said, line) {
				fmt.Fprintln(out, plain(line))
			}
		}
		said = g.labels
		for j, table := range g.tables {
			if j > 0 {
				fmt.Fprintln(out)
			}
			t.layOut(table).print(out)
		}
	}
}

// tableLayout is a table as text: a name, then for each run the median, its interval and
// a note; and for each but the first how much it differs, the test and a note.
type tableLayout struct {
	head, units []string // for each run
	rows        [][]string
	notes       []string
}

// Columns of a layout's row: the name, three for the first run, six for each other.
const (
	firstColumns = 3
	moreColumns  = 6
)

// columnsOf returns the columns of a run: from, and up to.
func columnsOf(run int) (from, to int) {
	if run == 0 {
		return 1, 1 + firstColumns
	}
	from = 1 + firstColumns + (run-1)*moreColumns
	return from, from + moreColumns
}

func (t *tabulation) layOut(u *unitTable) *tableLayout {
	l := &tableLayout{}
	_, columns := columnsOf(len(t.runs) - 1)
	for _, r := range t.runs {
		l.head = append(l.head, printable(r.Name))
		l.units = append(l.units, u.unit)
	}
	for _, row := range u.rows {
		cells := make([]string, columns)
		cells[0] = plain(row)
		scale := u.scale(row, len(t.runs))
		base := u.cells[cellAt{row, 0}]
		for i := range t.runs {
			if c := u.cells[cellAt{row, i}]; c != nil {
				from, to := columnsOf(i)
				l.cell(cells[from:to], c, base, scale)
			}
		}
		l.rows = append(l.rows, cells)
	}
	if len(u.rows) > 1 {
		l.rows = append(l.rows, l.geomeans(u, len(t.runs), columns))
	}
	return l
}

// scale is one for all runs of a benchmark, so that they can be compared by eye.
func (u *unitTable) scale(row string, runs int) benchunit.Scaler {
	var centers []float64
	for i := range runs {
		if c := u.cells[cellAt{row, i}]; c != nil {
			centers = append(centers, c.Center)
		}
	}
	return benchunit.CommonScale(centers, benchunit.ClassOf(u.unit))
}

// cell fills the columns of a run, and compares it with base if there are columns
// for that.
func (l *tableLayout) cell(cells []string, c, base *tableCell, scale benchunit.Scaler) {
	cells[0] = scale.Format(c.Center)
	cells[1] = "± " + c.PctRangeString()
	cells[2] = l.note(c.Sample.Warnings, c.Summary.Warnings)
	if len(cells) == firstColumns || base == nil {
		return
	}
	comparison := benchmath.AssumeNothing.Compare(base.Sample, c.Sample)
	cells[3] = comparison.FormatDelta(base.Center, c.Center)
	cells[4] = "(" + comparison.String() + ")"
	cells[5] = l.note(comparison.Warnings)
}

// Notes of geomeans, as benchstat has them.
var (
	errNoGeomean = errors.New("summaries must be >0 to compute geomean")
	errOtherRows = errors.New("benchmark set differs from baseline; geomeans may not be comparable")
)

func (l *tableLayout) geomeans(u *unitTable, runs, columns int) []string {
	cells := make([]string, columns)
	cells[0] = "geomean"
	for i := range runs {
		from, to := columnsOf(i)
		var warnings []error
		if !u.sameRows(0, i) {
			warnings = append(warnings, errOtherRows)
		}
		if mean := u.geomean(i); mean > 0 {
			cells[from] = benchunit.CommonScale([]float64{mean}, benchunit.ClassOf(u.unit)).Format(mean)
		} else {
			warnings = append(warnings, errNoGeomean)
		}
		cells[to-1] = l.note(warnings)
		if i == 0 {
			continue
		}
		if change := u.change(i); math.IsNaN(change) {
			cells[from+firstColumns] = "?"
		} else {
			cells[from+firstColumns] = fmt.Sprintf("%+.2f%%", (change-1)*100)
		}
	}
	return cells
}

// note returns the numbers of notes for warnings.
func (l *tableLayout) note(warnings ...[]error) string {
	var marks []string
	for _, list := range warnings {
		for _, w := range list {
			marks = append(marks, l.noteText(w.Error()))
		}
	}
	return strings.Join(marks, " ")
}

func (l *tableLayout) noteText(text string) string {
	i := slices.Index(l.notes, text)
	if i < 0 {
		i = len(l.notes)
		l.notes = append(l.notes, text)
	}
	return superscript(i + 1)
}

func superscript(n int) (s string) {
	for _, digit := range fmt.Sprint(n) {
		s += string([]rune("⁰¹²³⁴⁵⁶⁷⁸⁹")[digit-'0'])
	}
	return s
}

// print aligns the columns: numbers to the right, all else to the left.
func (l *tableLayout) print(out *output) {
	widths := make([]int, len(l.rows[0]))
	for _, row := range l.rows {
		for i, text := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(text))
		}
	}
	for run := range l.head { // the unit stands above the value, "vs base" above the rest
		from, to := columnsOf(run)
		widen(widths[from:from+firstColumns], utf8.RuneCountInString(l.units[run]))
		if run > 0 {
			widen(widths[from+firstColumns:to], len("vs base"))
		}
		widen(widths[from:to], utf8.RuneCountInString(l.head[run]))
	}
	head, units := padTo("", widths[0], false), padTo("", widths[0], false)
	for run := range l.head {
		from, to := columnsOf(run)
		head += " │ " + centerIn(l.head[run], spread(widths[from:to]))
		units += " │ " + centerIn(l.units[run], spread(widths[from:from+firstColumns]))
		if run > 0 {
			units += "  " + padTo("vs base", spread(widths[from+firstColumns:to]), false)
		}
	}
	fmt.Fprintln(out, head+" │")
	fmt.Fprintln(out, units+" │")
	for _, row := range l.rows {
		fmt.Fprintln(out, strings.TrimRight(l.line(row, widths), " "))
	}
	for i, note := range l.notes {
		fmt.Fprintln(out, superscript(i+1), plain(note))
	}
}

// line is a row with its columns aligned.
func (l *tableLayout) line(row []string, widths []int) string {
	text := padTo(row[0], widths[0], false)
	for run := range l.head {
		from, to := columnsOf(run)
		text += "  "
		for i := from; i < to; i++ {
			if i == from+firstColumns {
				text += " "
			}
			if widths[i] > 0 {
				text += " " + padTo(row[i], widths[i], (i-from)%firstColumns == 0)
			}
		}
	}
	return text
}

// spread is the width of columns with a space between those that have one; two
// before "vs base".
func spread(widths []int) (n int) {
	for i, w := range widths {
		if w > 0 {
			n += w + 1
		}
		if i == firstColumns {
			n++
		}
	}
	return n - 1
}

// widen makes the first column wide enough for all of them together.
func widen(widths []int, want int) {
	if short := want - spread(widths); short > 0 {
		if widths[0] == 0 {
			short-- // it had no space of its own
		}
		widths[0] += max(short, 0)
	}
}

func padTo(text string, width int, right bool) string {
	space := strings.Repeat(" ", max(width-utf8.RuneCountInString(text), 0))
	if right {
		return space + text
	}
	return text + space
}

func centerIn(text string, width int) string {
	space := max(width-utf8.RuneCountInString(text), 0)
	return strings.Repeat(" ", space/2) + text + strings.Repeat(" ", space-space/2)
}
