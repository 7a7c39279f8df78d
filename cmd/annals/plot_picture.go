package main

import (
	"bytes"
	"image/color"
	"time"

	"github.com/annalsdb/annals"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Colours that can be read on white and on black; the background is left out. Those of
// lines can be told apart by people who do not see all colours; a ninth line is dashed.
var (
	pictureGrey    = color.NRGBA{0x80, 0x80, 0x80, 0xff}
	pictureGrid    = color.NRGBA{0x80, 0x80, 0x80, 0x40}
	pictureColours = []color.NRGBA{
		{0x3b, 0x82, 0xd6, 0xff}, {0xdb, 0x7a, 0x1b, 0xff}, {0x2b, 0x9c, 0x6a, 0xff}, {0xc0, 0x60, 0xb8, 0xff},
		{0xd6, 0x50, 0x50, 0xff}, {0x29, 0xa3, 0xb8, 0xff}, {0x9a, 0x8a, 0x1c, 0xff}, {0x8b, 0x70, 0xe0, 0xff},
	}
)

const (
	pixel       = 72 * vg.Inch / 72 / 96 // as CSS has them
	pictureText = 13 * pixel
	titleText   = 16 * pixel
	margin      = 10 * pixel
)

// svg draws the picture as SVG. The font is not in the file; where the one that it was
// measured with is missing, others of the same width are there.
func (p *plotted) svg(size pixelsFlag) ([]byte, error) {
	canvas := vgsvg.New(vg.Length(size.width)*pixel, vg.Length(size.height)*pixel)
	p.draw(draw.New(canvas))
	var out bytes.Buffer
	_, err := canvas.WriteTo(&out)
	return bytes.ReplaceAll(out.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;")), err
}

// png draws the picture as PNG, with two dots a pixel for sharp screens and print.
func (p *plotted) png(size pixelsFlag) ([]byte, error) {
	canvas := vgimg.NewWith(vgimg.UseWH(vg.Length(size.width)*pixel, vg.Length(size.height)*pixel),
		vgimg.UseDPI(2*96), vgimg.UseBackgroundColor(color.Transparent))
	p.draw(draw.New(canvas))
	var out bytes.Buffer
	_, err := vgimg.PngCanvas{Canvas: canvas}.WriteTo(&out)
	return out.Bytes(), err
}

// timeAxisHeight is what the marks of time below the last panel take.
const timeAxisHeight = 45 * pixel

// draw draws the title, and below it the panels, the last one with the axis of time.
func (p *plotted) draw(c draw.Canvas) {
	c = draw.Crop(c, margin, -margin, margin, -margin)
	title := pictureStyle(titleText)
	title.YAlign = text.YTop
	c.FillText(title, vg.Point{X: c.Min.X, Y: c.Max.Y}, p.title)
	c = draw.Crop(c, 0, 0, 0, -titleText*1.6)

	begin, end, _, _ := extent(p.lines)
	x := newTimeAxis(begin, end, max(2, int((c.Max.X-c.Min.X)/(95*pixel))))
	last := len(p.panels) - 1
	height := (c.Max.Y - c.Min.Y - timeAxisHeight) / vg.Length(len(p.panels))
	charts := make([]*plot.Plot, len(p.panels))
	places := make([]draw.Canvas, len(p.panels))
	var left, right vg.Length
	for i, panel := range p.panels {
		place := c
		place.Max.Y -= vg.Length(i) * height
		if i < last {
			place.Min.Y = place.Max.Y - height + 2*margin
		}
		places[i] = draw.Crop(panel.drawLegend(place), 0, -margin, 0, 0)
		charts[i] = p.chart(panel, x, places[i], i == last)
		inner := charts[i].DataCanvas(places[i])
		left, right = max(left, inner.Min.X), inner.Max.X // of which the last one's has marks
	}
	for i, chart := range charts { // so that a moment is in one column of all
		inner := chart.DataCanvas(places[i])
		chart.Draw(draw.Crop(places[i], left-inner.Min.X, right-inner.Max.X, 0, 0))
	}
}

// chart is the plot of one panel.
func (p *plotted) chart(panel *panel, x timeAxis, place draw.Canvas, last bool) *plot.Plot {
	_, _, low, high := extent(panel.plain())
	y := newNumberAxis(low, high, panel.unit, max(2, int((place.Max.Y-place.Min.Y)/(50*pixel))))
	chart := plot.New()
	chart.BackgroundColor = nil
	chart.Y.Label.Text = p.axisLabel(&y)
	if last {
		chart.X.Label.Text = x.title()
	}
	for _, axis := range []*plot.Axis{&chart.X, &chart.Y} {
		axis.Color, axis.Tick.Color = pictureGrey, pictureGrey
		axis.Label.TextStyle.Font, axis.Tick.Label.Font = pictureFont(pictureText), pictureFont(pictureText)
		axis.Label.TextStyle.Color, axis.Tick.Label.Color = pictureGrey, pictureGrey
		axis.Label.Padding, axis.Tick.Length, axis.Padding = 4*pixel, 5*pixel, 0
	}
	chart.Y.LineStyle.Width, chart.Y.Tick.Length = 0, 0
	chart.X.Tick.Marker, chart.Y.Tick.Marker = x.plotTicks(), y.plotTicks()
	if !last {
		chart.HideX()
	}
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = nil, pictureGrid
	chart.Add(grid)
	for _, l := range panel.lines {
		chart.Add(&lineOfRuns{runs: l.runs(), begin: x.begin, axis: &y, style: lineStyle(l.style)})
	}
	chart.X.Min, chart.X.Max = 0, x.end.Sub(x.begin).Seconds()
	chart.Y.Min, chart.Y.Max = y.low, y.high
	return chart
}

func pictureFont(size vg.Length) font.Font {
	return font.Font{Typeface: "Liberation", Variant: "Sans", Size: size}
}

func pictureStyle(size vg.Length) text.Style {
	return text.Style{Color: pictureGrey, Font: pictureFont(size), Handler: plot.DefaultTextHandler}
}

func lineStyle(i int) draw.LineStyle {
	style := draw.LineStyle{Color: pictureColours[i%len(pictureColours)], Width: 1.5 * pixel}
	if i >= len(pictureColours) {
		style.Dashes = []vg.Length{5 * pixel, 3 * pixel}
	}
	return style
}

// drawLegend draws a row of names, or several, and returns what is left below.
func (p *panel) drawLegend(c draw.Canvas) draw.Canvas {
	if p.lines[0].name == "" {
		return c
	}
	const stroke, space, row = 18 * pixel, 6 * pixel, pictureText * 1.5
	style := pictureStyle(pictureText)
	style.YAlign = text.YCenter
	at := vg.Point{X: c.Min.X, Y: c.Max.Y - row/2}
	for _, l := range p.lines {
		width := stroke + space + style.Width(l.name)
		if at.X > c.Min.X && at.X+width > c.Max.X {
			at = vg.Point{X: c.Min.X, Y: at.Y - row}
		}
		line := lineStyle(l.style)
		line.Width *= 2
		middle := at.Y - pictureText/8 // of small letters
		c.StrokeLine2(line, at.X, middle, at.X+stroke, middle)
		c.FillText(style, vg.Point{X: at.X + stroke + space, Y: at.Y}, l.name)
		at.X += width + 3*space
	}
	c.Max.Y = at.Y - row
	return c
}

func (a *timeAxis) plotTicks() plot.ConstantTicks {
	var ticks plot.ConstantTicks
	for _, t := range a.marks() {
		ticks = append(ticks, plot.Tick{Value: t.Sub(a.begin).Seconds(), Label: a.label(t)})
	}
	return ticks
}

func (a *numberAxis) plotTicks() plot.ConstantTicks {
	var ticks plot.ConstantTicks
	for _, at := range a.ticks() {
		ticks = append(ticks, plot.Tick{Value: at, Label: a.label(at)})
	}
	return ticks
}

// lineOfRuns draws a line in pieces. A piece of one point is a dot.
type lineOfRuns struct {
	runs  [][]annals.Point
	begin time.Time
	axis  *numberAxis
	style draw.LineStyle
}

func (l *lineOfRuns) Plot(c draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&c)
	for _, run := range l.runs {
		points := make([]vg.Point, len(run))
		for i, point := range run {
			points[i] = vg.Point{X: toX(point.At.Sub(l.begin).Seconds()), Y: toY(l.axis.shown(point.Value))}
		}
		if len(points) == 1 {
			c.DrawGlyphNoClip(draw.GlyphStyle{Color: l.style.Color, Radius: 1.5 * l.style.Width, Shape: draw.CircleGlyph{}}, points[0])
			continue
		}
		c.StrokeLines(l.style, points)
	}
}
