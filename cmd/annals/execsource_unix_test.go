//go:build unix

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/annalsdb/annals"
)

func TestWhatACommandPrintsBecomesSamples(t *testing.T) {
	for _, test := range []struct {
		line string
		want []string
		err  string
	}{
		{"echo 21.5", []string{"21.5"}, ""},
		{"echo '{'; echo '  \"t\": 21.5'; echo '}'", []string{`{"t":21.5}`}, ""},
		{"printf 'one\\r\\n\\n{\"n\":2}\\nNaN'", []string{"one", `{"n":2}`, "NaN"}, ""},
		{"true", nil, ""},
		{"echo 1; echo what it is about >&2; echo no such sensor >&2; exit 3", nil, "exit status 3: no such sensor"},
		{"no-such-command-at-all", nil, "exit status 127: "},
		{"kill -9 $$", nil, "signal: killed"},
		{"sleep 60", nil, "it took longer than its interval of 2s, and was killed"},
		{"(trap '' TERM INT HUP; sleep 60) & sleep 60", nil, "it took longer than its interval of 2s, and was killed"},
		{"yes", nil, "it took longer than its interval of 2s, and was killed"},
		{"head -c 2000000 /dev/zero", nil, "it printed more than 1048576 bytes"},
	} {
		c := execSource{series: "s", line: test.line, every: 2 * time.Second}
		begin := time.Now()
		values, err := c.run(t.Context())
		var got []string
		for _, value := range values {
			got = append(got, string(value))
		}
		if !slices.Equal(got, test.want) || fmt.Sprint(err) != test.err && (test.err == "" || err == nil || !strings.HasPrefix(err.Error(), test.err)) && (test.err != "" || err != nil) {
			t.Errorf("%s: %q, %v", test.line, got, err)
		}
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("%s took %s", test.line, took)
		}
	}
}

// What a command has started is killed with it.
func TestNothingOfACommandIsLeft(t *testing.T) {
	file := filepath.Join(t.TempDir(), "alive")
	c := execSource{series: "s", line: "(while :; do echo x >> " + file + "; sleep 0.05; done) & sleep 60", every: time.Second}
	if _, err := c.run(t.Context()); err == nil {
		t.Fatal("it ended by itself")
	}
	size := func() int64 {
		info, err := os.Stat(file)
		must(t, err)
		return info.Size()
	}
	before := size()
	time.Sleep(300 * time.Millisecond)
	if after := size(); before == 0 || after != before {
		t.Errorf("its child has written %d bytes, and %d later", before, after)
	}
}

// Sources that fail and hang do not stop others, nor does each failure get a line.
func TestOneSourceDoesNotStopAnother(t *testing.T) {
	store, err := annals.Open(filepath.Join(t.TempDir(), "d"), nil)
	must(t, err)
	defer store.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var told warnings
	good := 0
	r := recorder{store: store, warn: told.warn, commands: []*execSource{
		{"hangs", "sleep 60", 150 * time.Millisecond},
		{"fails", "echo broken >&2; exit 1", time.Second},
		{"good", "echo 1", time.Second},
	}, input: strings.NewReader("a line\n{\"n\":1}\n"), series: "lines"}
	r.addSource(20*time.Millisecond, source{"beat", func(time.Time) (measurement, error) { return reading{1}, nil }})
	r.onTick = func(k tick) {
		if len(k.shown) == 1 && k.shown[0] == "good 1" {
			if good++; good == 3 {
				cancel()
			}
		}
	}
	must(t, r.run(ctx))
	list := told.all()
	slices.Sort(list)
	if len(list) != 3 || list[0] != "no fails is recorded while this lasts: exit status 1: broken; it is tried again every 1s" ||
		!strings.HasPrefix(list[1], "no hangs is recorded while this lasts: it took longer than its interval of 150ms, and was killed") ||
		list[2] != "standard input has ended; nothing more comes to lines" {
		t.Errorf("warnings: %q", list)
	}
	if got := samplesOf(t, store, "lines"); !slices.Equal(got, []string{"a line", `{"n":1}`}) {
		t.Errorf("lines: %q", got)
	}
	if got := samplesOf(t, store, "beat"); len(got) < 10 {
		t.Errorf("%d samples of a beat", len(got))
	}
}
