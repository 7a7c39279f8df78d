package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// status shows on standard error that the recorder runs: on a terminal one line that
// changes, with --verbose a line a commit, else nothing but warnings.
type status struct {
	w       io.Writer
	live    bool
	verbose bool
	width   func() int

	mu struct {
		sync.Mutex
		samples int
		bytes   int
		latest  map[string]string // what is shown of each series
		order   []string
		drawn   time.Time
		line    string // that stands on the terminal

		counted time.Time // when samples was old
		old     int
		rate    float64 // samples a second
		waiting string
		last    string // the last warning
	}
}

func newStatus(cmd *cobra.Command) *status {
	s := &status{w: cmd.ErrOrStderr(), live: isTerminal(cmd.ErrOrStderr()) && !verbose(cmd), verbose: verbose(cmd)}
	s.width = func() int {
		if f, ok := s.w.(*os.File); ok {
			if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
				return width
			}
		}
		return 80
	}
	s.mu.latest = map[string]string{}
	s.mu.counted = time.Now()
	return s
}

// show takes a commit into account.
func (s *status) show(t tick) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.verbose {
		fmt.Fprintln(s.w, describe(t))
	}
	if !s.live {
		return
	}
	s.mu.samples += t.count
	s.mu.bytes += t.size
	s.mu.waiting = ""
	for _, text := range t.shown {
		name, _, _ := strings.Cut(text, " ")
		if _, ok := s.mu.latest[name]; !ok {
			s.mu.order = append(s.mu.order, name)
		}
		s.mu.latest[name] = text
	}
	if time.Since(s.mu.drawn) >= 20*time.Millisecond {
		s.draw()
	}
}

// wait shows that the disk is full.
func (s *status) wait(waiting, dropped int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live {
		s.mu.waiting = fmt.Sprintf("DISK FULL: %s wait, %s dropped", count(waiting), count(dropped))
		s.draw()
	}
}

// warn says something on a line of its own.
func (s *status) warn(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	if s.live {
		fmt.Fprint(s.w, "\r\x1b[K") // takes the status line away
	}
	fmt.Fprintf(s.w, "annals: %s\n", text)
	s.mu.last = time.Now().Format(time.TimeOnly) + " " + text
	if s.live {
		s.draw()
	}
}

// draw draws the status line anew, no longer than the terminal is wide.
func (s *status) draw() {
	now := time.Now()
	if passed := now.Sub(s.mu.counted); passed >= time.Second || s.mu.rate == 0 && s.mu.samples > 0 {
		s.mu.rate = float64(s.mu.samples-s.mu.old) / max(passed, time.Millisecond).Seconds()
		s.mu.counted, s.mu.old = now, s.mu.samples
	}
	parts := []string{now.Format(time.TimeOnly), count(s.mu.samples) + " samples", fmt.Sprintf("%.1f/s", s.mu.rate), byteCount(int64(s.mu.bytes))}
	if s.mu.waiting != "" {
		parts = append(parts, s.mu.waiting)
	}
	if s.mu.last != "" {
		parts = append(parts, "last warning "+cut(s.mu.last, 60))
	}
	for _, name := range s.mu.order {
		parts = append(parts, s.mu.latest[name])
	}
	s.mu.line = cut(strings.Join(parts, "  "), s.width()-1)
	s.mu.drawn = now
	fmt.Fprintf(s.w, "\r%s\x1b[K", s.mu.line) // and clears what the last line left
}

// cut is the beginning of a text that fits into so many columns.
func cut(text string, columns int) string {
	for utf8.RuneCountInString(text) > max(columns, 0) {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	return text
}

// end draws the last state, and goes to the next line.
func (s *status) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live {
		s.draw()
		fmt.Fprintln(s.w)
	}
}

// describe is a tick as one line of text.
func describe(t tick) string {
	return strings.Join(append(append([]string{t.at.Format(time.TimeOnly)}, t.shown...), fmt.Sprintf("seq %d", t.seq)), "  ")
}
