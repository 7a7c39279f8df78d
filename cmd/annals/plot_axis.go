package main

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// unit is what the numbers of a field are counted in, and how an axis shows them.
type unit struct {
	name   string // "" if it is not known
	binary bool   // bytes: KiB are 1,024 of them
}

// unitSuffixes are the ends of field names that tell the unit, as the series of record
// have them. A longer one stands before its own end.
var unitSuffixes = []struct {
	suffix string
	unit   unit
}{
	{"_bytes_per_s", unit{"B/s", true}},
	{"_bytes", unit{"B", true}},
	{"_per_s", unit{"1/s", false}},
	{"_percent", unit{"%", false}},
	{"_pct", unit{"%", false}},
	{"_celsius", unit{"°C", false}},
	{"_seconds", unit{"s", false}},
	{"_hz", unit{"Hz", false}},
	{"_ns", unit{"ns", false}},
	{"_us", unit{"µs", false}},
	{"_ms", unit{"ms", false}},
	{"_s", unit{"s", false}},
}

// splitUnit takes the unit off the last name of a field: busy_pct is "busy" in "%".
func splitUnit(field string) (name string, u unit) {
	name = strings.TrimPrefix(strings.TrimPrefix(field, "val"), ".")
	last := name[strings.LastIndexByte(name, '.')+1:]
	for _, s := range unitSuffixes {
		if strings.HasSuffix(last, s.suffix) && last != s.suffix {
			return strings.TrimSuffix(name, s.suffix), s.unit
		}
	}
	return name, unit{}
}

// numberAxis is an axis of numbers: from low to high, which are ticks both.
type numberAxis struct {
	low, high, step float64
	factor          float64 // what one of the shown numbers stands for
	unit            string  // of the shown numbers: MiB for bytes
	suffix          string  // behind each number: k, M, µ
	decimals        int
}

// newNumberAxis fits an axis to numbers, with at most so many steps.
func newNumberAxis(low, high float64, u unit, steps int) numberAxis {
	if low >= 0 && low <= high/2 {
		low = 0
	}
	if low == high {
		around := math.Abs(low) / 10
		if around == 0 {
			around = 1
		}
		low, high = low-around, high+around
	}
	a := numberAxis{factor: 1, unit: u.name}
	size := max(math.Abs(low), math.Abs(high))
	if u.binary {
		a.scaleBinary(size)
	} else {
		a.scaleDecimal(size)
	}
	a.step = niceStep((high/a.factor - low/a.factor) / float64(steps))
	a.low = math.Floor(low/a.factor/a.step) * a.step
	a.high = math.Ceil(high/a.factor/a.step) * a.step
	a.decimals = max(0, -int(math.Floor(math.Log10(a.step)*(1+1e-12)+1e-9)))
	return a
}

func (a *numberAxis) scaleBinary(size float64) {
	prefixes := []string{"", "Ki", "Mi", "Gi", "Ti", "Pi"}
	n := 0
	for ; size >= 1024 && n < len(prefixes)-1; n++ {
		size /= 1024
		a.factor *= 1024
	}
	a.unit = prefixes[n] + a.unit
}

func (a *numberAxis) scaleDecimal(size float64) {
	switch {
	case size >= 1e5 && size < 1e18:
		n := int(math.Log10(size)) / 3
		a.factor, a.suffix = math.Pow(1000, float64(n)), []string{"", " k", " M", " G", " T", " P"}[n]
	case size < 1e-2 && size >= 1e-9:
		n := int(math.Ceil(-math.Log10(size) / 3))
		a.factor, a.suffix = math.Pow(1000, -float64(n)), []string{"", " m", " µ", " n"}[n]
	case size >= 1e18 || size < 1e-9:
		exponent := max(math.Floor(math.Log10(size)), -300) // 1e-324 is 0
		a.factor, a.suffix = math.Pow(10, exponent), "e"+strconv.Itoa(int(exponent))
	}
}

// niceStep is 1, 2 or 5 times a power of ten, and at least so much.
func niceStep(least float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(least)))
	for _, n := range []float64{1, 2, 5} {
		if n*power >= least*(1-1e-9) {
			return n * power
		}
	}
	return 10 * power
}

// shown is where a number stands on the axis.
func (a *numberAxis) shown(x float64) float64 { return x / a.factor }

// label spells a place on the axis.
func (a *numberAxis) label(at float64) string {
	if math.Abs(at) < a.step/1e6 {
		return "0"
	}
	return strconv.FormatFloat(at, 'f', a.decimals, 64) + a.suffix
}

// ticks are the places of the marks.
func (a *numberAxis) ticks() (places []float64) {
	n := int(math.Round((a.high - a.low) / a.step))
	for i := range n + 1 {
		places = append(places, a.low+float64(i)*a.step)
	}
	return places
}

// timeStep is the distance of marks on an axis of time: in months, or else days, or
// else a time.
type timeStep struct {
	months, days int
	short        time.Duration
}

const day = 24 * time.Hour

// about is how long a step is, or a little less.
func (s timeStep) about() time.Duration {
	return time.Duration(s.months)*28*day + time.Duration(s.days)*day + s.short
}

// timeSteps are all steps that people can read, from the shortest to the longest.
func timeSteps() (steps []timeStep) {
	for d := time.Microsecond; d < time.Second; d *= 10 {
		steps = append(steps, timeStep{short: d}, timeStep{short: 2 * d}, timeStep{short: 5 * d})
	}
	for _, unit := range []time.Duration{time.Second, time.Minute} {
		for _, n := range []time.Duration{1, 2, 5, 10, 15, 30} {
			steps = append(steps, timeStep{short: n * unit})
		}
	}
	for _, hours := range []time.Duration{1, 2, 3, 6, 12} {
		steps = append(steps, timeStep{short: hours * time.Hour})
	}
	for _, n := range []int{1, 2, 7, 14} {
		steps = append(steps, timeStep{days: n})
	}
	for _, n := range []int{1, 3, 6} {
		steps = append(steps, timeStep{months: n})
	}
	for _, years := range []int{1, 2, 5, 10, 20, 50, 100} { // the log holds some 570
		steps = append(steps, timeStep{months: 12 * years})
	}
	return steps
}

// timeAxis is an axis of time, in the zone of its beginning.
type timeAxis struct {
	begin, end time.Time
	step       timeStep
}

// newTimeAxis fits an axis to a span of time, with at most so many marks.
func newTimeAxis(begin, end time.Time, marks int) timeAxis {
	if !end.After(begin) {
		begin, end = begin.Add(-time.Second), begin.Add(time.Second)
	}
	a := timeAxis{begin: begin, end: end}
	for _, a.step = range timeSteps() {
		if end.Sub(begin)/time.Duration(marks) <= a.step.about() {
			break
		}
	}
	return a
}

// marks are the moments that get a label.
func (a *timeAxis) marks() (marks []time.Time) {
	for t := a.firstMark(); !t.After(a.end); t = a.next(t) {
		if !t.Before(a.begin) {
			marks = append(marks, t)
		}
	}
	return marks
}

// firstMark is a mark at or before the beginning.
func (a *timeAxis) firstMark() time.Time {
	year, month, dayOf := a.begin.Date()
	zone := a.begin.Location()
	switch s := a.step; {
	case s.months > 0:
		months := year*12 + int(month) - 1
		return time.Date(0, time.Month(months-months%s.months+1), 1, 0, 0, 0, 0, zone)
	case s.days > 0:
		return time.Date(year, month, dayOf, 0, 0, 0, 0, zone)
	case s.short >= time.Hour:
		return time.Date(year, month, dayOf, a.begin.Hour()-a.begin.Hour()%s.hours(), 0, 0, 0, zone)
	default:
		hour := time.Date(year, month, dayOf, a.begin.Hour(), 0, 0, 0, zone)
		return hour.Add(a.begin.Sub(hour).Truncate(s.short))
	}
}

func (s timeStep) hours() int { return int(s.short / time.Hour) }

// next is the mark behind one. Hours are those of the clock on the wall, also in a night
// in which it is set.
func (a *timeAxis) next(t time.Time) time.Time {
	switch s := a.step; {
	case s.short == 0:
		return t.AddDate(0, s.months, s.days)
	case s.short >= time.Hour:
		hour := t.Hour() - t.Hour()%s.hours() + s.hours()
		next := time.Date(t.Year(), t.Month(), t.Day(), hour, 0, 0, 0, t.Location())
		if next.Hour() != hour%24 { // which is left out in this night
			next = next.Add(time.Hour)
		}
		if next.After(t) {
			return next
		}
	}
	return t.Add(a.step.short)
}

// label spells a mark: the day where one begins, else the time.
func (a *timeAxis) label(t time.Time) string {
	s := a.step
	switch {
	case s.months >= 12:
		return t.Format("2006")
	case s.months > 0:
		return t.Format("Jan 2006")
	case s.days > 0, s.short >= time.Minute && t.Hour() == 0 && t.Minute() == 0 && !a.oneDay():
		return t.Format("Jan 2")
	case s.short >= time.Minute:
		return t.Format("15:04")
	case s.short >= time.Second:
		return t.Format("15:04:05")
	}
	layout := "05."
	if s.short >= time.Millisecond {
		layout = "15:04:05."
	}
	for d := time.Second; d > s.short; d /= 10 {
		layout += "0"
	}
	return t.Format(layout)
}

func (a *timeAxis) oneDay() bool {
	return a.begin.Format(time.DateOnly) == a.end.Format(time.DateOnly)
}

// title says what the marks leave out: the day, and the zone.
func (a *timeAxis) title() string {
	zone, _ := a.begin.Zone()
	if other, _ := a.end.Zone(); other != zone {
		zone += "/" + other
	}
	switch {
	case a.step.months > 0:
		return zone
	case a.step.short >= time.Millisecond || a.step.short == 0:
		if a.oneDay() {
			return a.begin.Format(time.DateOnly) + ", " + zone
		}
		return a.begin.Format(time.DateOnly) + " to " + a.end.Format(time.DateOnly) + ", " + zone
	}
	return a.begin.Format("2006-01-02 15:04:05") + ", " + zone + "; marks in seconds"
}
