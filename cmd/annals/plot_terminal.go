package main

import (
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/guptarohit/asciigraph"
	"github.com/spf13/cobra"
)

// terminalRows is how high a drawing in the terminal is.
const terminalRows = 16

// Colours that can be read on light and dark terminals, and what stands for them where
// there are none.
var (
	terminalColours = []asciigraph.AnsiColor{asciigraph.SteelBlue, asciigraph.Chocolate, asciigraph.SeaGreen, asciigraph.MediumPurple, asciigraph.IndianRed, asciigraph.Goldenrod}
	terminalChars   = []string{"*", "+", "o", "x", "#", "@"}
)

// drawText draws with characters. All text in it has been made plain, so it may go to
// a terminal as it is, with the colours.
func (p *plotted) drawText(cmd *cobra.Command, columns int) error {
	out := cmd.OutOrStdout()
	coloured := isTerminal(out) && os.Getenv("NO_COLOR") == ""
	begin, end, low, high := extent(p.lines)
	y := newNumberAxis(low, high, p.unit, terminalRows/4)
	x := newTimeAxis(begin, end, 5)
	rows := float64(terminalRows)
	data := make([][]float64, len(p.lines))
	for i, l := range p.lines {
		data[i] = characters(l, x.begin, x.end, columns)
		for j, value := range data[i] {
			data[i][j] = (y.shown(value) - y.low) / (y.high - y.low) * rows
		}
	}
	options := []asciigraph.Option{
		asciigraph.Height(terminalRows), asciigraph.LowerBound(0), asciigraph.UpperBound(rows),
		asciigraph.YAxisValueFormatter(func(row float64) string { return y.rowLabel(row, rows) }),
		asciigraph.XAxisRange(0, 1), asciigraph.XAxisTickCount(min(5, columns/12)),
		asciigraph.XAxisValueFormatter(func(share float64) string {
			return x.moment(x.begin.Add(time.Duration(share * float64(x.end.Sub(x.begin)))))
		}),
	}
	legend := make([]string, len(p.names))
	var colours []asciigraph.AnsiColor
	var sets []asciigraph.CharSet
	for i := range p.lines {
		char := terminalChars[i%len(terminalChars)]
		colour := terminalColours[i%len(terminalColours)]
		colours, sets = append(colours, colour), append(sets, asciigraph.CreateCharSet(char))
		switch {
		case len(legend) == 0:
		case coloured:
			legend[i] = colour.String() + "──" + asciigraph.Default.String() + " " + p.names[i]
		default:
			legend[i] = char + char + " " + p.names[i]
		}
	}
	switch {
	case coloured:
		options = append(options, asciigraph.SeriesColors(colours...))
	case len(p.lines) > 1:
		options = append(options, asciigraph.SeriesChars(sets...))
	}
	title := p.title
	if y.unit != "" {
		title += " (" + y.unit + ")"
	}
	if len(legend) > 0 {
		title += "   " + strings.Join(legend, "   ")
	}
	_, err := fmt.Fprintf(pipeWriter{out}, "%s\n\n%s\n\n%s\n", title, asciigraph.PlotMany(data, options...), x.title())
	return err
}

// rowLabel spells the number of a row, if it is a tick.
func (a *numberAxis) rowLabel(row, rows float64) string {
	at := a.low + row/rows*(a.high-a.low)
	half := (a.high - a.low) / rows / 2
	for _, tick := range a.ticks() {
		if at >= tick-half && at < tick+half {
			return a.label(tick)
		}
	}
	return ""
}

// moment spells any moment on the axis, no coarser than a character is wide.
func (a *timeAxis) moment(t time.Time) string {
	switch s := a.step; {
	case s.months > 0:
		return t.Format("2006-01")
	case s.days >= 7:
		return t.Format("2006-01-02")
	case s.days > 0, s.short >= time.Hour && !a.oneDay():
		return t.Format("Jan 2 15:04")
	}
	switch width := a.end.Sub(a.begin) / 50; {
	case width >= time.Minute:
		return a.label(t.Round(time.Minute))
	case width >= time.Second:
		return t.Round(time.Second).Format(time.TimeOnly)
	default:
		layout, digit := time.TimeOnly+".", time.Second/10
		if a.step.short < time.Millisecond {
			layout = "05."
		}
		for ; digit > width && digit > time.Microsecond; digit /= 10 {
			layout += "0"
		}
		return t.Round(digit).Format(layout + "0")
	}
}

// characters are the numbers of a line, one for each column of characters. A spike in
// one of them takes the next one too: the lowest and the highest number of two columns
// stand side by side, in their order. What lies between two points is on the line
// between them, and a silence is no number.
func characters(l *plotLine, begin, end time.Time, columns int) []float64 {
	values := make([]float64, columns)
	for i := range values {
		values[i] = math.NaN()
	}
	place := func(at time.Time) int {
		return int(float64(at.Sub(begin)) / float64(end.Sub(begin)+1) * float64(columns))
	}
	for _, run := range l.runs() {
		coarse := newPlotLine(begin, end, (columns+1)/2)
		for _, p := range run {
			coarse.add(p)
		}
		last := -1
		put := func(at int, value float64) {
			for i := last + 1; last >= 0 && i < at; i++ {
				values[i] = values[last] + (value-values[last])*float64(i-last)/float64(at-last)
			}
			values[at], last = value, at
		}
		for i, c := range coarse.columns {
			switch {
			case !c.used:
			case c.low == c.high:
				put(min(max(place(c.low.At), last+1), columns-1), c.low.Value)
			default:
				one, other := c.low, c.high
				if other.At.Before(one.At) {
					one, other = other, one
				}
				put(2*i, one.Value)
				put(min(2*i+1, columns-1), other.Value)
			}
		}
	}
	return values
}
