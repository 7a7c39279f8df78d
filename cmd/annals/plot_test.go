package main

import (
	"encoding/xml"
	"fmt"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/annalsdb/annals"
)

func TestAxesOfNumbersEndOnRoundOnes(t *testing.T) {
	for _, test := range []struct {
		low, high float64
		unit      unit
		want      string // first, second and last label, and the unit
	}{
		{0, 100, unit{"%", false}, "0 20 100 %"},
		{3, 97, unit{"%", false}, "0 20 100 %"},
		{19.2, 21.4, unit{"°C", false}, "19.0 19.5 21.5 °C"},
		{-5, 5, unit{}, "-6 -4 6 "},
		{0, 0, unit{}, "-1.0 -0.5 1.0 "},
		{7, 7, unit{}, "6.0 6.5 8.0 "},
		{0, 1 << 30, unit{"B", true}, "0 0.2 1.0 GiB"},
		{1000 << 20, 1010 << 20, unit{"B", true}, "1000 1002 1010 MiB"},
		{0, 1536, unit{"B/s", true}, "0.0 0.5 1.5 KiB/s"},
		{0, 100_000, unit{}, "0 20 k 100 k "},
		{0, 3.3e6, unit{"1/s", false}, "0 1 M 4 M 1/s"},
		{0, 0.0042, unit{"s", false}, "0 1 m 5 m s"},
		{0, 3e40, unit{}, "0 0.5e40 3.0e40 "},
		{-math.MaxFloat64, math.MaxFloat64, unit{}, "-2e308 -1e308 2e308 "},
		{0, math.SmallestNonzeroFloat64, unit{}, ""},
	} {
		a := newNumberAxis(test.low, test.high, test.unit, 6)
		ticks := a.ticks()
		if len(ticks) < 3 || len(ticks) > 8 {
			t.Fatalf("%v to %v: ticks %v", test.low, test.high, ticks)
		}
		got := strings.Join([]string{a.label(ticks[0]), a.label(ticks[1]), a.label(ticks[len(ticks)-1]), a.unit}, " ")
		if test.want != "" && strings.ReplaceAll(got, "0.0 ", "0 ") != strings.ReplaceAll(test.want, "0.0 ", "0 ") {
			t.Errorf("%v to %v: %q, want %q", test.low, test.high, got, test.want)
		}
		if a.shown(test.low) < a.low-a.step/1e6 || a.shown(test.high) > a.high+a.step/1e6 {
			t.Errorf("%v to %v does not fit on %v", test.low, test.high, a)
		}
	}
}

func TestAxesOfTimeHaveRoundMarks(t *testing.T) {
	newYork, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Date(2026, 3, 7, 22, 13, 4, 250_000_000, newYork)
	for _, test := range []struct {
		length time.Duration
		want   string
	}{
		{0, "22:13:03.5 22:13:04.0 22:13:04.5 22:13:05.0"},
		{40 * time.Microsecond, "04.25000 04.25001"},
		{time.Second, "22:13:04.4 22:13:04.6 22:13:04.8"},
		{10 * time.Second, "22:13:06 22:13:08"},
		{time.Minute, "22:13:10 22:13:20"},
		{10 * time.Minute, "22:14 22:16"},
		{3 * time.Hour, "22:30 23:00 23:30 Mar 8 00:30 01:00"},
		{12 * time.Hour, "Mar 8 03:00 04:00 06:00"}, // in this night 02:00 is left out
		{3 * day, "Mar 8 12:00 Mar 9"},
		{12 * day, "Mar 9 Mar 11 Mar 13"},
		{60 * day, "Mar 21 Apr 4 Apr 18"},
		{365 * day, "Apr 2026 Jul 2026"},
		{20 * 365 * day, "2030 2035 2040"},
		{290 * 365 * day, "2050 2100 2150"},
	} {
		a := newTimeAxis(begin, begin.Add(test.length), 7)
		var labels []string
		for _, m := range a.marks() {
			labels = append(labels, a.label(m))
			if m.Before(a.begin) || m.After(a.end) {
				t.Errorf("%s: mark %s", test.length, m)
			}
		}
		if len(labels) > 9 || len(labels) < 2 {
			t.Errorf("%s: marks %v", test.length, labels)
		}
		if got := strings.Join(labels, " "); !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: marks %q, want %q first", test.length, got, test.want)
		}
	}
}

// TestNoSpikeIsLost compares lines with all samples: in each column of pixels the
// lowest, the highest, the first and the last number are there.
func TestNoSpikeIsLost(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		begin := time.UnixMicro(rng.Int64N(1e15))
		length := time.Duration(1+rng.Int64N(1e12)) * time.Microsecond
		end := begin.Add(length)
		columns := 1 + rng.IntN(300)
		l := newPlotLine(begin, end, columns)
		all := make([][]annals.Point, columns)
		for range rng.IntN(3000) {
			p := annals.Point{At: begin.Add(time.Duration(rng.Int64N(int64(length) + 1))).Truncate(time.Microsecond), Value: rng.NormFloat64()}
			if rng.IntN(10) == 0 {
				p.At = []time.Time{begin, end}[rng.IntN(2)]
			}
			l.add(p)
			all[l.columnOf(p.At)] = append(all[l.columnOf(p.At)], p)
		}
		shown := l.points()
		if !slices.IsSortedFunc(shown, func(a, b annals.Point) int { return a.At.Compare(b.At) }) || len(shown) > 4*columns {
			t.Fatalf("%d points, in order: %v", len(shown), shown)
		}
		for i, points := range all {
			if len(points) == 0 {
				continue
			}
			byValue := func(a, b annals.Point) int { return int(math.Copysign(1, a.Value-b.Value)) }
			for _, p := range []annals.Point{slices.MinFunc(points, byValue), slices.MaxFunc(points, byValue)} {
				if !slices.Contains(shown, p) {
					t.Fatalf("column %d lacks %v", i, p)
				}
			}
		}
	}
}

func TestNoLineIsDrawnOverASilence(t *testing.T) {
	begin := time.Unix(1_700_000_000, 0)
	l := newPlotLine(begin, begin.Add(1000*time.Second), 500)
	for second := range 1000 {
		if second < 300 || second == 500 || second > 700 {
			l.add(annals.Point{At: begin.Add(time.Duration(second) * time.Second), Value: float64(second)})
		}
	}
	l.add(annals.Point{At: begin, Value: math.NaN()})
	l.add(annals.Point{At: begin, Value: math.Inf(1)})
	runs := l.runs()
	if len(runs) != 3 || len(runs[1]) != 1 || runs[1][0].Value != 500 || runs[0][0].Value != 0 || runs[0][len(runs[0])-1].Value != 299 {
		t.Fatalf("%d runs: %v", len(runs), runs)
	}
	values := characters(l, begin, begin.Add(999*time.Second), 100)
	for i, value := range values {
		silent := i > 30 && i < 70 && i != 50
		if math.IsNaN(value) != silent && i != 30 && i != 69 && i != 70 {
			t.Errorf("column %d shows %v", i, value)
		}
	}
}

func TestUnitsComeFromNames(t *testing.T) {
	for field, want := range map[string]string{
		"val.busy_pct": "busy %", "val.read_bytes_per_s": "read B/s", "val.reads_per_s": "reads 1/s",
		"val.disk.0.used_bytes": "disk.0.used B", "val": " ", "val.t": "t ", "val._ms": "_ms ", "val.wait_ms": "wait ms", "val.gpus": "gpus ",
	} {
		if name, u := splitUnit(field); name+" "+u.name != want {
			t.Errorf("%s: %q in %q", field, name, u.name)
		}
	}
}

// TestLinesThatAreUnlikeGetPanels: of each field its unit and its highest number tell.
func TestLinesThatAreUnlikeGetPanels(t *testing.T) {
	begin := time.Unix(1_700_000_000, 0)
	for _, test := range []struct {
		lines string // field=highest
		flags plotFlags
		want  string // the fields of each panel
	}{
		{"a=1", plotFlags{}, "a"},
		{"a=1 b=20", plotFlags{}, "a b"},
		{"a=1 b=20.1", plotFlags{}, "a | b"},
		{"a=1 b=-20.1", plotFlags{}, "a | b"},
		{"a=1 b=1000 c=0 d=15 e=900", plotFlags{}, "a c d | b e"},
		{"a=0 b=0", plotFlags{}, "a b"},
		{"a_pct=50 b_bytes=50 c_pct=60", plotFlags{}, "a_pct c_pct | b_bytes"},
		{"a_bytes=1 b_bytes=1000", plotFlags{}, "a_bytes | b_bytes"},
		{"a_pct=50 b_bytes=50", plotFlags{unit: "K"}, "a_pct b_bytes"},
		{"a_pct=50 b_bytes=5000", plotFlags{oneAxis: true}, "a_pct b_bytes"},
		{"a/min=1 a/max=1000 b=900", plotFlags{}, "a/min a/max b"},
		{"a_ms/avg=60 a_ms/count=60", plotFlags{}, "a_ms/avg | a_ms/count"},
	} {
		var lines []*plotLine
		for _, text := range strings.Fields(test.lines) {
			name, value, _ := strings.Cut(text, "=")
			l := newPlotLine(begin, begin, 10)
			l.field, l.agg, _ = strings.Cut("val."+name, "/")
			high, err := strconv.ParseFloat(value, 64)
			must(t, err)
			l.add(annals.Point{At: begin, Value: high})
			lines = append(lines, l)
		}
		var panels []string
		for _, panel := range newPlotted(lines, &test.flags).panels {
			var names []string
			for _, l := range panel.lines {
				names = append(names, strings.TrimSuffix(strings.TrimPrefix(l.field, "val.")+"/"+l.agg, "/"))
			}
			panels = append(panels, strings.Join(names, " "))
		}
		if got := strings.Join(panels, " | "); got != test.want {
			t.Errorf("%s: %s, want %s", test.lines, got, test.want)
		}
	}
}

// TestPicturesOfHostileNames draws what anybody may have called a series: the SVG must
// stay XML without a tag that was not drawn, and the terminal as it was.
func TestPicturesOfHostileNames(t *testing.T) {
	names := []string{hostile, `<script>alert(1)</script>`, `"&amp;]]>`, "\xff\x00", "größe\u202e"}
	var lines []*plotLine
	begin := time.Unix(1_700_000_000, 0)
	for i, name := range names {
		l := newPlotLine(begin, begin.Add(time.Minute), 300)
		l.series, l.field = name, "val."+name
		l.add(annals.Point{At: begin, Value: 1})
		l.add(annals.Point{At: begin.Add(time.Minute), Value: float64(i)})
		lines = append(lines, l)
	}
	for _, p := range []*plotted{newPlotted(lines, &plotFlags{}), newPlotted(lines[:1], &plotFlags{}), newPlotted(lines[1:2], &plotFlags{unit: hostile, title: hostile})} {
		svg, err := p.svg(pixelsFlag{600, 300})
		if err != nil {
			t.Fatal(err)
		}
		var v struct {
			Script []string `xml:"g>script"`
			Text   []string `xml:"g>text"`
		}
		if err := xml.Unmarshal(svg, &v); err != nil || len(v.Script) > 0 || len(v.Text) < 5 {
			t.Errorf("%v, %d scripts: %s", err, len(v.Script), svg)
		}
		texts := append(v.Text, p.title, p.label)
		for _, panel := range p.panels {
			texts = append(texts, panel.unit.name)
			for _, l := range panel.lines {
				texts = append(texts, l.name)
			}
		}
		for _, text := range texts {
			if strings.ContainsFunc(text, acts) {
				t.Errorf("the picture holds %q", text)
			}
		}
	}
}

// TestPicturesHaveTheSizeThatWasAskedFor and keep the permissions of what they replace.
func TestPicturesHaveTheSizeThatWasAskedFor(t *testing.T) {
	dir := t.TempDir()
	store, picture := filepath.Join(dir, "d"), filepath.Join(dir, "p.png")
	harmless(t, "1\n2\n3\n", "append", store, "s")
	if err := os.WriteFile(picture, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	if out := harmless(t, "", "plot", store, "s", "--png", picture, "--size", "640x300"); out != "" {
		t.Errorf("standard output: %q", out)
	}
	f, err := os.Open(picture)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	config, err := png.DecodeConfig(f)
	if err != nil || config.Width != 1280 || config.Height != 600 {
		t.Errorf("%v: %d x %d dots", err, config.Width, config.Height)
	}
	if info, err := f.Stat(); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if out := harmless(t, "", "plot", store, "s", "--title", hostile); strings.ContainsFunc(out, acts) {
		t.Errorf("standard output holds what a terminal acts upon: %q", out)
	}
}

func TestEveryIsSpelledAsItIsRead(t *testing.T) {
	for _, text := range []string{"500ms", "10s", "1m", "1m30s", "1h", "1h30m", "90m", "1d", "7d", "36h"} {
		var f, again everyFlag
		if err := f.Set(text); err != nil {
			t.Fatal(err)
		}
		if err := again.Set(f.String()); err != nil || again != f {
			t.Errorf("%s is spelled %s: %v", text, f.String(), err)
		}
	}
	var f everyFlag
	if f.Set("7d"); f.String() != "7d" || fmt.Sprint(time.Duration(f)) != "168h0m0s" {
		t.Errorf("7d is %s", f.String())
	}
}
