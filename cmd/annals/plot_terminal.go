package main

import (
	"fmt"
	"math"
	"os"
	"strings"
	"time"
	"unicode/utf8"

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
	begin, end, _, _ := extent(p.lines)
	x := newTimeAxis(begin, end, 5)
	rows := terminalRows
	if len(p.panels) > 1 {
		rows /= 2
	}
	axes := make([]numberAxis, len(p.panels))
	width := 0 // of the longest number: the panels begin in one column
	for i, panel := range p.panels {
		_, _, low, high := extent(panel.plain())
		axes[i] = newNumberAxis(low, high, panel.unit, rows/4)
		for row := range rows + 1 {
			width = max(width, utf8.RuneCountInString(axes[i].rowLabel(float64(row), float64(rows))))
		}
	}
	var text strings.Builder
	if len(p.panels) > 1 && p.title != "" {
		text.WriteString(p.title + "\n\n")
	}
	for i, panel := range p.panels {
		options := []asciigraph.Option{
			asciigraph.Height(rows), asciigraph.LowerBound(0), asciigraph.UpperBound(float64(rows)),
			asciigraph.YAxisValueFormatter(func(row float64) string { return fmt.Sprintf("%*s", width, axes[i].rowLabel(row, float64(rows))) }),
		}
		if i == len(p.panels)-1 {
			options = append(options, x.terminalMarks(columns)...)
		}
		options = append(options, panel.terminalStyles(coloured, len(p.lines) > 1)...)
		head := panel.terminalLegend(coloured)
		if axes[i].unit != "" {
			head = append([]string{"(" + axes[i].unit + ")"}, head...)
		}
		title := strings.Join(head, "   ")
		if len(p.panels) == 1 {
			title = strings.Replace(p.title+"   "+title, "   (", " (", 1)
		}
		fmt.Fprintf(&text, "%s\n\n%s\n\n", strings.TrimSpace(title), asciigraph.PlotMany(panel.rows(&axes[i], &x, rows, columns), options...))
	}
	_, err := fmt.Fprintf(pipeWriter{out}, "%s%s\n", text.String(), x.title())
	return err
}

// rows are the numbers of the lines in rows of characters.
func (p *panel) rows(y *numberAxis, x *timeAxis, rows, columns int) [][]float64 {
	data := make([][]float64, len(p.lines))
	for i, l := range p.lines {
		data[i] = characters(l.plotLine, x.begin, x.end, columns)
		for j, value := range data[i] {
			data[i][j] = (y.shown(value) - y.low) / (y.high - y.low) * float64(rows)
		}
	}
	return data
}

// terminalMarks draw the axis of time.
func (a *timeAxis) terminalMarks(columns int) []asciigraph.Option {
	return []asciigraph.Option{
		asciigraph.XAxisRange(0, 1), asciigraph.XAxisTickCount(min(5, columns/12)),
		asciigraph.XAxisValueFormatter(func(share float64) string {
			return a.moment(a.begin.Add(time.Duration(share * float64(a.end.Sub(a.begin)))))
		}),
	}
}

// terminalStyles tell the lines apart, by colours or by characters.
func (p *panel) terminalStyles(coloured, several bool) []asciigraph.Option {
	var colours []asciigraph.AnsiColor
	var sets []asciigraph.CharSet
	for _, l := range p.lines {
		colours = append(colours, terminalColours[l.style%len(terminalColours)])
		sets = append(sets, asciigraph.CreateCharSet(terminalChars[l.style%len(terminalChars)]))
	}
	switch {
	case coloured:
		return []asciigraph.Option{asciigraph.SeriesColors(colours...)}
	case several:
		return []asciigraph.Option{asciigraph.SeriesChars(sets...)}
	}
	return nil
}

// terminalLegend is the names of the lines, each behind what it is drawn with.
func (p *panel) terminalLegend(coloured bool) (legend []string) {
	for _, l := range p.lines {
		char := terminalChars[l.style%len(terminalChars)]
		colour := terminalColours[l.style%len(terminalColours)]
		switch {
		case l.name == "":
		case coloured:
			legend = append(legend, colour.String()+"──"+asciigraph.Default.String()+" "+l.name)
		default:
			legend = append(legend, char+char+" "+l.name)
		}
	}
	return legend
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
