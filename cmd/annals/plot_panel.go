package main

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
)

// plotted is what a picture shows, whatever draws it.
type plotted struct {
	lines  []*plotLine
	panels []*panel
	title  string
	label  string // what the axes of numbers say, beside their units
}

// panel is the lines that share an axis of numbers.
type panel struct {
	lines []panelLine
	unit  unit
}

type panelLine struct {
	*plotLine
	name  string // for the legend; "" if it is the only line of the picture
	style int
}

// plain are the lines alone.
func (p *panel) plain() (lines []*plotLine) {
	for _, l := range p.lines {
		lines = append(lines, l.plotLine)
	}
	return lines
}

// newPlotted finds the words: what all lines share stands in the title and on the axis,
// what tells them apart in the legend.
func newPlotted(lines []*plotLine, f *plotFlags) *plotted {
	p := &plotted{lines: lines}
	shared := func(of func(*plotLine) string) (string, bool) {
		for _, l := range lines {
			if of(l) != of(lines[0]) {
				return "", false
			}
		}
		return of(lines[0]), true
	}
	series, oneSeries := shared(func(l *plotLine) string { return l.series })
	_, oneUnit := shared(func(l *plotLine) string { _, u := splitUnit(l.field); return u.name })
	fieldName := func(l *plotLine) string {
		name, u := splitUnit(l.field)
		if u.name != "" && !oneUnit {
			return strings.TrimPrefix(l.field, "val.")
		}
		return name
	}
	field, oneField := shared(fieldName)
	agg, oneAgg := shared(func(l *plotLine) string { return l.agg })
	names := map[*plotLine]string{}
	for _, l := range lines {
		var words []string
		add := func(word string, shared bool) {
			if word != "" && !shared {
				words = append(words, plain(word))
			}
		}
		add(l.series, oneSeries)
		add(fieldName(l), oneField)
		add(l.agg, oneAgg)
		if len(lines) > 1 {
			names[l] = strings.Join(words, " ")
		}
	}
	for _, group := range f.share(lines) {
		panel := &panel{unit: f.unitOf(group)}
		for _, l := range group {
			panel.lines = append(panel.lines, panelLine{l, names[l], slices.Index(lines, l)})
		}
		p.panels = append(p.panels, panel)
	}
	if !oneSeries {
		series = ""
	}
	p.title, p.label = f.words(series, field, agg), plain(field)
	return p
}

// unlike is how many times as high as another a line may be to share its axis: of one
// that is higher the other shows nothing but a flat line.
const unlike = 20

// share tells which lines are to be on one axis, in their order.
func (f *plotFlags) share(lines []*plotLine) (groups [][]*plotLine) {
	if f.oneAxis {
		return [][]*plotLine{lines}
	}
	// The aggregates of a field stay together: how far apart they are is what they tell.
	type field struct {
		unit         unit
		series, name string
	}
	of := func(l *plotLine) field { return field{f.unitOf([]*plotLine{l}), l.series, l.field} }
	size := map[field]float64{}
	for _, l := range lines {
		_, _, low, high := extent([]*plotLine{l})
		size[of(l)] = max(size[of(l)], math.Abs(low), math.Abs(high))
	}
	bySize := slices.SortedFunc(maps.Keys(size), func(a, b field) int { return cmp.Compare(size[b], size[a]) })
	top := map[unit]float64{} // of the panel that is being filled
	panel := map[field]float64{}
	for _, field := range bySize {
		if size[field] > 0 && size[field] < top[field.unit]/unlike || top[field.unit] == 0 {
			top[field.unit] = size[field]
		}
		panel[field] = top[field.unit]
	}
	for _, l := range lines {
		same := func(group []*plotLine) bool {
			return of(group[0]).unit == of(l).unit && panel[of(group[0])] == panel[of(l)]
		}
		if i := slices.IndexFunc(groups, same); i >= 0 {
			groups[i] = append(groups[i], l)
		} else {
			groups = append(groups, []*plotLine{l})
		}
	}
	return groups
}

// unitOf is the unit of all lines; none if they differ.
func (f *plotFlags) unitOf(lines []*plotLine) (u unit) {
	for i, l := range lines {
		_, own := splitUnit(l.field)
		if f.unit != "" {
			own = unit{name: plain(f.unit), binary: f.unit == "B" || f.unit == "B/s"}
		}
		if l.agg == "count" {
			own = unit{}
		}
		if i > 0 && own != u {
			return unit{}
		}
		u = own
	}
	return u
}

// words are the title: what all lines share.
func (f *plotFlags) words(series, field, agg string) string {
	if f.title != "" {
		return plain(f.title)
	}
	var words []string
	for _, word := range []string{series, field} {
		if word != "" {
			words = append(words, plain(word))
		}
	}
	title := strings.Join(words, ": ")
	if f.every != 0 {
		if agg != "" {
			agg += " "
		}
		title = strings.TrimPrefix(title+", "+agg+"per "+f.every.String(), ", ")
	}
	return title
}

// axisLabel is the name of the numbers with their unit.
func (p *plotted) axisLabel(a *numberAxis) string {
	switch {
	case p.label == "":
		return a.unit
	case a.unit == "":
		return p.label
	}
	return p.label + ", " + a.unit
}
