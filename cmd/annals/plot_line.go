package main

import (
	"math"
	"slices"
	"time"

	"github.com/annalsdb/annals"
)

// A plotLine is one line of a picture. It holds no more points than the picture can
// show: of each column of pixels the first, the last, the lowest and the highest,
// which draw the same pixels as all of them would (the M4 aggregation of Jugel and
// others, 2014), so that no spike is lost.
type plotLine struct {
	series, field, agg string

	begin   time.Time
	width   time.Duration // of a column
	columns []plotColumn
}

// plotColumn is what one column of pixels shows; low and high are 0 if it is empty.
type plotColumn struct {
	first, last, low, high annals.Point
	used                   bool
}

// newPlotLine makes a line with so many columns for the time from begin to end, both
// included.
func newPlotLine(begin, end time.Time, columns int) *plotLine {
	return &plotLine{begin: begin, width: columnWidth(begin, end, columns), columns: make([]plotColumn, columns)}
}

// columnWidth is the time that a column stands for, in whole microseconds.
func columnWidth(begin, end time.Time, columns int) time.Duration {
	micros := end.UnixMicro() - begin.UnixMicro() + 1
	return time.Duration((micros+int64(columns)-1)/int64(columns)) * time.Microsecond
}

// add takes in a point, in any order of time.
func (l *plotLine) add(p annals.Point) {
	if math.IsNaN(p.Value) || math.IsInf(p.Value, 0) {
		return
	}
	c := &l.columns[min(max(l.columnOf(p.At), 0), len(l.columns)-1)]
	if !c.used {
		*c = plotColumn{p, p, p, p, true}
		return
	}
	if p.At.Before(c.first.At) {
		c.first = p
	}
	if !p.At.Before(c.last.At) {
		c.last = p
	}
	if p.Value < c.low.Value {
		c.low = p
	}
	if p.Value > c.high.Value {
		c.high = p
	}
}

func (l *plotLine) columnOf(at time.Time) int {
	return int((at.UnixMicro() - l.begin.UnixMicro()) / l.width.Microseconds())
}

// runs are the points to draw, in the order of time, in pieces: no line is drawn over
// a silence, which is ten times as long as most distances, and some columns wide.
func (l *plotLine) runs() (runs [][]annals.Point) {
	points := l.points()
	var distances []time.Duration
	for i := 1; i < len(points); i++ {
		distances = append(distances, points[i].At.Sub(points[i-1].At))
	}
	slices.Sort(distances)
	silence := 4 * l.width
	if len(distances) > 0 {
		silence = max(silence, 10*distances[len(distances)/2])
	}
	begin := 0
	for i := range points {
		if i > 0 && points[i].At.Sub(points[i-1].At) > silence {
			runs = append(runs, points[begin:i])
			begin = i
		}
	}
	if begin < len(points) {
		runs = append(runs, points[begin:])
	}
	return runs
}

// points are all points in the order of time.
func (l *plotLine) points() (points []annals.Point) {
	for _, c := range l.columns {
		if !c.used {
			continue
		}
		four := []annals.Point{c.first, c.low, c.high, c.last}
		slices.SortStableFunc(four, func(a, b annals.Point) int { return a.At.Compare(b.At) })
		points = append(points, slices.Compact(four)...)
	}
	return points
}

// extent is the span of all points of the lines.
func extent(lines []*plotLine) (begin, end time.Time, low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, l := range lines {
		for _, c := range l.columns {
			if !c.used {
				continue
			}
			low, high = min(low, c.low.Value), max(high, c.high.Value)
			if begin.IsZero() || c.first.At.Before(begin) {
				begin = c.first.At
			}
			if end.IsZero() || c.last.At.After(end) {
				end = c.last.At
			}
		}
	}
	return begin, end, low, high
}
