package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/replace"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// plotFlags are the flags of plot.
type plotFlags struct {
	since, until timeFlag
	every        everyFlag
	aggs         aggFlag
	fields       []string
	title, unit  string
	svg, png     string
	size         pixelsFlag
	oneAxis      bool
	damage       damageFlag
}

func newPlot() *cobra.Command {
	f := plotFlags{size: pixelsFlag{900, 420}}
	cmd := verb("plot DIR SERIES...", "Draw series over time, in the terminal or as SVG or PNG",
		func(cmd *cobra.Command, args []string) error { return runPlot(cmd, args[0], args[1:], &f) })
	cmd.Long = `Plot draws the numbers at one or several --field of one or several series. Of more
samples than the picture is wide it draws the first, last, lowest and highest of each
column of pixels, so no spike is lost; with --every it draws --agg of each stretch of
time instead, at the beginning of it. No line is drawn over a silence.

Each series is drawn with those of the fields that it has. Lines in other units, or more
than twenty times as high as others, get a panel of their own, one below the other.

Times are in the local time zone (TZ=UTC for UTC), and are given as for annals samples. The
unit is taken from the end of the field's name, such as _pct, _bytes, _per_s or _ms, unless
--unit gives one. Colours suit light and dark backgrounds; the background is transparent.

A picture that exists is replaced at once as a whole. The status is 1 if there is no such
series, or no number to draw.`
	cmd.Example = `  annals plot data cpu --field val.busy_pct --since 10m
  annals plot data cpu memory --field val.busy_pct --field val.used_bytes
  annals plot data cpu --field val.user_pct --field val.system_pct --svg cpu.svg
  annals plot data disk --field val.write_bytes_per_s --every 1m --agg avg,p99 --png disk.png`
	cmd.Flags().StringArrayVar(&f.fields, "field", []string{"val"}, "where the number stands: val, val.t, val.disk.0.free; may be given several times")
	cmd.Flags().Var(&f.since, "since", "only samples of this time and later")
	cmd.Flags().Var(&f.until, "until", "only samples before this time")
	cmd.Flags().Var(&f.every, "every", "sum up such stretches of time, such as 10s, 1m, 1h or 1d")
	cmd.Flags().Var(&f.aggs, "agg", "what to draw of each stretch: avg (the default), min, max, p99 and so on")
	cmd.Flags().StringVar(&f.title, "title", "", "the title (default the series and the field)")
	cmd.Flags().StringVar(&f.unit, "unit", "", "the unit of the numbers; B and B/s are shown in KiB, MiB and so on")
	cmd.Flags().BoolVar(&f.oneAxis, "one-axis", false, "draw all lines on one axis, however unlike they are")
	cmd.Flags().StringVar(&f.svg, "svg", "", "write an SVG file instead; - is standard output")
	cmd.Flags().StringVar(&f.png, "png", "", "write a PNG file instead; - is standard output")
	cmd.Flags().Var(&f.size, "size", "width and height of the picture in pixels; without it more panels make it higher")
	f.damage.register(cmd)
	return cmd
}

// pixelsFlag is the size of a picture on the command line.
type pixelsFlag struct{ width, height int }

func (f *pixelsFlag) Type() string   { return "size" }
func (f *pixelsFlag) String() string { return fmt.Sprintf("%dx%d", f.width, f.height) }

func (f *pixelsFlag) Set(s string) error {
	var p pixelsFlag
	if _, err := fmt.Sscanf(s, "%dx%d", &p.width, &p.height); err != nil || p.String() != s ||
		p.width < 300 || p.height < 200 || p.width > 10_000 || p.height > 10_000 {
		return errors.New("must be a width and a height in pixels such as 900x420, from 300x200 to 10000x10000")
	}
	*f = p
	return nil
}

// check refuses flags that do not go together.
func (f *plotFlags) check(cmd *cobra.Command) error {
	switch {
	case f.every == 0 && len(f.aggs) > 0:
		return errors.New("--agg goes with --every: the stretch of time that is summed up")
	case cmd.Flags().Changed("svg") && f.svg == "" || cmd.Flags().Changed("png") && f.png == "":
		return errors.New("the file to write is empty")
	case f.svg == "-" && f.png == "-":
		return errors.New("--svg and --png cannot both go to standard output")
	case checkSpan(f.since, f.until) != nil:
		return checkSpan(f.since, f.until)
	case slices.Contains(f.fields, ""):
		return errEmptyField
	case f.svg == "" && f.png == "" && cmd.Flags().Changed("size"):
		return errors.New("--size goes with --svg or --png; a drawing in the terminal is as wide as that")
	}
	return nil
}

func runPlot(cmd *cobra.Command, dir string, series []string, f *plotFlags) error {
	if err := f.check(cmd); err != nil {
		return usageError(cmd, err)
	}
	if f.every != 0 && len(f.aggs) == 0 {
		_ = f.aggs.Set("avg")
	}
	columns := f.size.width
	if f.svg == "" && f.png == "" {
		columns = terminalColumns(cmd)
	}
	var lines []*plotLine
	answer := f.damage.withReader(cmd, dir, func(reader *annals.Reader) (err error) {
		snapshot := reader.Snapshot()
		defer snapshot.Close()
		lines, err = f.read(cmd, f.damage.sampler(snapshot), series, columns)
		return err
	})
	if len(lines) == 0 {
		return answer
	}
	p := newPlotted(lines, f)
	if err := f.fit(cmd, len(p.panels)); err != nil {
		return usageError(cmd, err)
	}
	if err := f.draw(cmd, p, columns); err != nil {
		return err
	}
	return answer // that something damaged is not in the drawing
}

// fit makes the picture high enough for its panels, unless its size was given.
func (f *plotFlags) fit(cmd *cobra.Command, panels int) error {
	const most, least, rest = 200, 80, 120 // of a panel, and what else there is
	switch {
	case !cmd.Flags().Changed("size"):
		f.size.height = min(f.size.height+(panels-1)*most, 10_000)
	case f.size.height < panels*least+rest && panels > 1:
		return fmt.Errorf("--size %s is too low for %d panels: they need %d, or --one-axis", f.size.String(), panels, panels*least+rest)
	}
	return nil
}

// draw draws in the terminal, or into the files that were named.
func (f *plotFlags) draw(cmd *cobra.Command, p *plotted, columns int) (err error) {
	if f.svg == "" && f.png == "" {
		return p.drawText(cmd, columns)
	}
	if f.svg != "" {
		err = errors.Join(err, writePicture(cmd, f.svg, p.svg, f.size))
	}
	if f.png != "" {
		err = errors.Join(err, writePicture(cmd, f.png, p.png, f.size))
	}
	return err
}

func writePicture(cmd *cobra.Command, path string, draw func(pixelsFlag) ([]byte, error), size pixelsFlag) error {
	picture, err := draw(size)
	if err != nil {
		return fmt.Errorf("drawing %q: %w", path, err)
	}
	if path == "-" {
		_, err := pipeWriter{cmd.OutOrStdout()}.Write(picture)
		return err
	}
	err = replace.WriteFile(path, picture, replace.Perm(0o644))
	var at *fs.PathError
	if errors.As(err, &at) { // which names a temporary file
		return fmt.Errorf("%q can't be written: %w", path, at.Err)
	}
	return err
}

// terminalColumns is how wide the drawing may be, beside the numbers of its axis.
func terminalColumns(cmd *cobra.Command) int {
	width := 80
	if file, ok := cmd.OutOrStdout().(*os.File); ok {
		if w, _, err := term.GetSize(int(file.Fd())); err == nil && w > 0 {
			width = w
		}
	}
	return max(width-14, 20)
}

// read reads the lines: for each series, each field and each aggregate.
func (f *plotFlags) read(cmd *cobra.Command, from annals.Sampler, series []string, columns int) (lines []*plotLine, err error) {
	begin, end, err := f.span(from, series)
	if err != nil {
		return nil, err
	}
	w := annals.Window{Since: time.Time(f.since), Until: time.Time(f.until)}
	type pair struct{ series, field string }
	absent := map[pair]error{} // what a series does not have of the fields
	for _, name := range series {
		for _, field := range f.fields {
			added, err := f.readLines(cmd, from, name, field, w, func() *plotLine {
				l := newPlotLine(begin, end, columns)
				l.series, l.field = name, field
				return l
			})
			if errors.As(err, new(*noError)) {
				absent[pair{name, field}] = err
				continue
			}
			if err != nil {
				return nil, err
			}
			lines = append(lines, added...)
		}
	}
	// Of several series each has its own fields; one with none of them, or a field that
	// nobody has, is a mistake.
	for _, name := range series {
		for _, field := range f.fields {
			drawn := func(l *plotLine) bool { return l.series == name }
			drawnToo := func(l *plotLine) bool { return l.field == field }
			if err := absent[pair{name, field}]; err != nil && !(slices.ContainsFunc(lines, drawn) && slices.ContainsFunc(lines, drawnToo)) {
				return nil, err
			}
		}
	}
	lines = slices.DeleteFunc(lines, func(l *plotLine) bool { return len(l.points()) == 0 })
	if len(lines) == 0 {
		return nil, answerNo("nothing to draw: there is no number of %s in this time", strings.Join(series, ", "))
	}
	return lines, nil
}

// readLines reads the lines of one field of one series.
func (f *plotFlags) readLines(cmd *cobra.Command, from annals.Sampler, series, field string, w annals.Window, line func() *plotLine) (lines []*plotLine, err error) {
	if f.every == 0 {
		l := line()
		a := annals.Aggregation{Every: l.width, Field: field, Window: w}
		return []*plotLine{l}, eachBucket(cmd, from, series, a, func(b annals.Bucket) error {
			for _, p := range []annals.Point{b.First, b.Min, b.Max, b.Last} {
				l.add(p)
			}
			return nil
		})
	}
	sums := aggregateFlags{every: f.every, aggs: f.aggs, field: field}
	for _, agg := range f.aggs {
		l := line()
		l.agg = agg.name
		lines = append(lines, l)
	}
	return lines, eachBucket(cmd, from, series, sums.aggregation(w), func(b annals.Bucket) error {
		for i, agg := range f.aggs {
			lines[i].add(annals.Point{At: b.Start, Value: agg.of(b)})
		}
		return nil
	})
}

// span is the time to draw: from the first sample of all series to the last one, as
// far as they lie in the window.
func (f *plotFlags) span(from annals.Sampler, series []string) (begin, end time.Time, err error) {
	first, last := int64(math.MaxInt64), int64(math.MinInt64)
	there := map[string]bool{}
	for info, err := range from.Series() {
		if err != nil {
			return begin, end, err
		}
		if there[info.Name] = true; slices.Contains(series, info.Name) {
			first, last = min(first, info.First.UnixMicro()), max(last, info.Last.UnixMicro())
		}
	}
	for _, name := range series {
		if !there[name] {
			return begin, end, answerNo("no series %q", name)
		}
	}
	if since := time.Time(f.since); !since.IsZero() {
		first = max(first, since.UnixMicro())
	}
	if until := time.Time(f.until); !until.IsZero() {
		last = min(last, until.UnixMicro())
	}
	if first > last {
		return begin, end, answerNo("no samples of %s in this time", strings.Join(series, ", "))
	}
	begin, end = time.UnixMicro(first), time.UnixMicro(last)
	if end.Sub(begin) == math.MaxInt64 { // which is what longer times are taken for
		return begin, end, fmt.Errorf("the samples are too far apart to draw: from %s to %s; --since and --until choose among them",
			begin.Format(time.DateOnly), end.Format(time.DateOnly))
	}
	return begin, end, nil
}
