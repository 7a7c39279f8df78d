package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

func TestLineReaderKnowsWhereItIs(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	lines := newLineReader(strings.NewReader("a\n\n" + long + "\r\nend"))
	for i, want := range []struct {
		line       string
		start, end int64
	}{
		{"a", 0, 2}, {"", 2, 3}, {long + "\r", 3, 1<<20 + 5}, {"end", 1<<20 + 5, 1<<20 + 8},
	} {
		line, err := lines.next()
		if err != nil {
			t.Fatal(err)
		}
		if string(line) != want.line || lines.number != i+1 || lines.start != want.start || lines.end != want.end {
			t.Errorf("line %d at %d to %d has %d bytes, want line %d at %d to %d with %d",
				lines.number, lines.start, lines.end, len(line), i+1, want.start, want.end, len(want.line))
		}
	}
	if _, err := lines.next(); err != io.EOF {
		t.Errorf("error at the end is %v", err)
	}
}

func TestLineReaderRefusesEndlessLines(t *testing.T) {
	lines := newLineReader(io.MultiReader(strings.NewReader("ok\n"), strings.NewReader(strings.Repeat("x", 1<<20))))
	lines.limit = 1<<20 - 1
	if _, err := lines.next(); err != nil {
		t.Fatal(err)
	}
	if _, err := lines.next(); err == nil || !strings.HasPrefix(err.Error(), "line 2 is longer than") {
		t.Errorf("error is %v", err)
	}
}

// The reader of a pipe whose writer is silent must still end with its context.
func TestInterruptibleReadEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	defer w.Close()
	in := interruptible(ctx, r)
	go w.Write([]byte("hello"))
	buf := make([]byte, 3)
	if n, err := io.ReadFull(in, buf); n != 3 || err != nil || string(buf) != "hel" {
		t.Fatalf("read %q, %v", buf[:n], err)
	}
	if n, err := in.Read(buf); string(buf[:n]) != "lo" || err != nil {
		t.Fatalf("read %q, %v", buf[:n], err)
	}
	time.AfterFunc(10*time.Millisecond, cancel)
	for range 2 { // and it stays ended
		if n, err := in.Read(buf); n != 0 || !errors.Is(err, context.Canceled) {
			t.Fatalf("read %d bytes, %v", n, err)
		}
	}
}

func TestInterruptibleReadsAll(t *testing.T) {
	want := strings.Repeat("0123456789", 200_000)
	got, err := io.ReadAll(interruptible(t.Context(), strings.NewReader(want)))
	if err != nil || string(got) != want {
		t.Fatalf("read %d bytes of %d, %v", len(got), len(want), err)
	}
}
