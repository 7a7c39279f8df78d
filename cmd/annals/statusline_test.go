package main

import (
	"strings"
	"testing"
	"time"
)

// The status line stays one line, whatever happens, and says what is wrong.
func TestStatusLineFitsTheTerminal(t *testing.T) {
	var b strings.Builder
	s := &status{w: &b, live: true, width: func() int { return 80 }}
	s.mu.latest = map[string]string{}
	s.show(tick{n: 1, at: time.Now(), count: 5, size: 1024, seq: 5, shown: []string{"cpu 1 %", strings.Repeat("ä", 100)}})
	s.warn("no %s is recorded while this lasts", "cpu")
	s.wait(1234, 5)
	for _, line := range strings.FieldsFunc(b.String(), func(r rune) bool { return r == '\r' || r == '\n' }) {
		line = strings.TrimSuffix(line, "\x1b[K")
		if n := len([]rune(line)); n > 79 {
			t.Errorf("%d columns: %q", n, line)
		}
	}
	if got := b.String(); !strings.Contains(got, "5 samples") || !strings.Contains(got, "1.0 KiB") ||
		!strings.Contains(got, "\r\x1b[Kannals: no cpu is recorded while this lasts\n") || !strings.Contains(got, "DISK FULL: 1,234 wait, 5 dropped") {
		t.Errorf("the terminal gets %q", got)
	}
}
