package main

import (
	"bytes"
	"errors"
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/annalsdb/annals/replace"
)

// Colours that can be read on white and on black; the background is left out.
var (
	grey  = color.NRGBA{0x80, 0x80, 0x80, 0xff}
	blue  = color.NRGBA{0x3b, 0x82, 0xd6, 0xff}
	amber = color.NRGBA{0xc9, 0x8a, 0x1b, 0xff}
)

// charts says which workloads are drawn together.
var charts = []struct {
	file, title string
	workloads   []string
}{
	{"durable", "Durable puts, relative to annals", []string{"durable put, 1 writer", "durable put, 8 writers", "durable put, 64 writers", "load, synced batches of 1,000"}},
	{"reads", "Reads, relative to annals", []string{"random get, 1 goroutine", "random get, 2 goroutines", "scan of everything, compacted", "scans of 50 rows, compacted"}},
	{"mixed", "Puts without sync, and mixes, relative to annals", []string{"put, not synced", "mixed 50/50 get and put", "YCSB A", "YCSB B", "YCSB E"}},
}

// draw writes the tables and the charts.
func (rep *report) draw(dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	var text bytes.Buffer
	fmt.Fprint(&text, "# The last run\n\n")
	rep.print(&text)
	err := replace.WriteFile(filepath.Join(dir, "README.md"), text.Bytes(), replace.Perm(0o644))
	for _, c := range charts {
		var rows []row
		for _, name := range c.workloads {
			for _, r := range rep.rows {
				if r.workload == name && r.medians["annals"] > 0 {
					rows = append(rows, r)
				}
			}
		}
		if len(rows) > 0 {
			err = errors.Join(err, chart(filepath.Join(dir, c.file+".svg"), c.title, rows))
		}
	}
	return err
}

// chart draws bars for each workload and contestant: how fast it is if annals
// is 1.
func chart(path, title string, rows []row) error {
	p := plot.New()
	p.BackgroundColor = nil // transparent is no color that SVG can spell
	p.Title.Text = title
	p.X.Label.Text = "annals = 1, to the right is faster"
	for _, style := range []*color.Color{&p.Title.TextStyle.Color, &p.X.Label.TextStyle.Color, &p.X.Tick.Label.Color,
		&p.Y.Tick.Label.Color, &p.X.Color, &p.Y.Color, &p.X.Tick.Color, &p.Y.Tick.Color} {
		*style = grey
	}
	for _, f := range []*font.Font{&p.Title.TextStyle.Font, &p.X.Label.TextStyle.Font, &p.X.Tick.Label.Font, &p.Y.Tick.Label.Font} {
		f.Typeface, f.Variant = "Liberation", "Sans"
	}
	p.Title.Padding = 4 * vg.Millimeter
	var names []string
	at := 0.0
	for i := len(rows) - 1; i >= 0; i-- {
		at, names = addBars(p, &rows[i], at, names)
	}
	p.X.Min = 0
	p.NominalY(names...)
	p.Y.Tick.Length, p.Y.LineStyle.Width = 0, 0
	var svg strings.Builder
	w, err := p.WriterTo(18*vg.Centimeter, vg.Length(at)*0.45*vg.Centimeter+2.5*vg.Centimeter, "svg")
	if err != nil {
		return err
	}
	if _, err := w.WriteTo(&svg); err != nil {
		return err
	}
	return replace.WriteFile(path, []byte(strings.ReplaceAll(svg.String(), "font-family:Liberation Sans;", "font-family:Liberation Sans,Arial,Helvetica,sans-serif;")), replace.Perm(0o644))
}

func addBars(p *plot.Plot, r *row, at float64, names []string) (float64, []string) {
	columns := columns([]row{*r})
	for i := len(columns) - 1; i >= 0; i-- {
		name := columns[i]
		bar, err := plotter.NewBarChart(plotter.Values{r.medians[name] / r.medians["annals"]}, vg.Millimeter*3)
		if err != nil { // a value that is no number
			continue
		}
		bar.Horizontal, bar.XMin, bar.LineStyle.Width, bar.Color = true, at, 0, grey
		switch name {
		case "annals":
			bar.Color = blue
		case "floor":
			bar.Color = amber
		}
		p.Add(bar)
		names = append(names, "  "+name+" ") // room for a font that is wider than the one here
		at++
	}
	labels, err := plotter.NewLabels(plotter.XYLabels{XYs: []plotter.XY{{X: 0, Y: at}}, Labels: []string{r.workload}})
	if err == nil {
		labels.TextStyle[0].Color, labels.TextStyle[0].YAlign = blue, draw.YCenter
		labels.TextStyle[0].Font.Variant = "Sans"
		p.Add(labels)
	}
	return at + 1, append(names, "")
}
