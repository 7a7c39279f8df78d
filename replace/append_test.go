package replace

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// parse returns the objects of the good lines, and the reasons of the bad ones.
func parse(t *testing.T, r io.Reader) (good, bad []string) {
	t.Helper()
	for line, err := range ReadLines(r) {
		var lineErr *LineError
		switch {
		case err == nil:
			good = append(good, string(line.Object))
		case errors.As(err, &lineErr):
			assert.Equal(t, line.Number, lineErr.Number)
			assert.Equal(t, line.Offset, lineErr.Offset)
			bad = append(bad, fmt.Sprintf("%v, torn: %v", err, lineErr.Torn))
		default:
			require.NoError(t, err)
		}
	}
	return good, bad
}

func TestAppendWritesLinesThatAnyoneCanCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for _, object := range []string{`{"a":1}`, "x", "with a space ", "ünïcode \xff", strings.Repeat("long ", 100_000)} {
		require.NoError(t, Append(path, []byte(object)))
	}
	// zlib.crc32(b'{"a":1}') and so on, from Python
	lines := strings.SplitAfter(read(t, path), "\n")
	assert.Equal(t, "{\"a\":1} 561bacaf\n", lines[0])
	assert.Equal(t, "x 8cdc1683\n", lines[1])
	good, bad := parse(t, strings.NewReader(read(t, path)))
	assert.Len(t, good, 5)
	assert.Equal(t, "with a space ", good[2])
	assert.Empty(t, bad)
}

func TestAppendRefusesWhatIsNoLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for _, object := range []string{"", "two\nlines", "a\ttab", "\x00", "\r", strings.Repeat("x", MaxObject+1)} {
		assert.ErrorIs(t, Append(path, []byte(object)), ErrObject)
	}
	assert.NoFileExists(t, path)
	longest := bytes.Repeat([]byte("x"), MaxObject)
	require.NoError(t, Append(path, longest))
	good, bad := parse(t, strings.NewReader(read(t, path)))
	assert.Empty(t, bad)
	assert.Equal(t, []string{string(longest)}, good)
}

func TestAppendTakesItsStepsInOrder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	require.NoError(t, os.Mkdir(dir, 0o700))
	path := filepath.Join(dir, "log")
	s := &steps{FS: OS}
	require.NoError(t, Append(path, []byte("1"), On(s)))
	assert.Equal(t, []string{"lock log", "syncdir dir", "write log", "sync log", "close log"}, s.taken())
	s = &steps{FS: OS}
	require.NoError(t, Append(path, []byte("2"), On(s)))
	assert.Equal(t, []string{"lock log", "write log", "syncdata log", "close log"}, s.taken())
}

// Cut the file after each of its bytes: what is appended then is whole, and so is
// everything before the line that was cut.
func TestAppendAfterATornLineIsNotGluedToIt(t *testing.T) {
	dir := t.TempDir()
	whole := filepath.Join(dir, "whole")
	require.NoError(t, Append(whole, []byte(`{"n":1}`)))
	require.NoError(t, Append(whole, []byte(`{"n":2}`)))
	contents := read(t, whole)
	end1 := strings.Index(contents, "\n")
	for size := range len(contents) + 1 {
		path := filepath.Join(dir, fmt.Sprint("torn", size))
		require.NoError(t, os.WriteFile(path, []byte(contents[:size]), 0o600))
		require.NoError(t, Append(path, []byte(`{"n":3}`)))
		assert.Equal(t, contents[:size], read(t, path)[:size], "evidence is kept")

		var want []string
		if size >= end1 { // all but its newline is enough
			want = append(want, `{"n":1}`)
		}
		if size >= len(contents)-1 {
			want = append(want, `{"n":2}`)
		}
		want = append(want, `{"n":3}`)
		good, bad := parse(t, strings.NewReader(read(t, path)))
		assert.Equal(t, want, good, "cut at %d", size)
		assert.LessOrEqual(t, len(bad), 1)
	}
}

func TestFailedAppend(t *testing.T) {
	for _, old := range []string{"", "old"} {
		prepare := func(dir string) {
			if old != "" {
				require.NoError(t, Append(filepath.Join(dir, "log"), []byte(old)))
			}
		}
		run := func(fsys FS, dir string) error {
			return Append(filepath.Join(dir, "log"), []byte("new"), On(fsys))
		}
		sweep(t, prepare, run, func(t *testing.T, dir string, err error, s *steps) {
			require.Error(t, err)
			path := filepath.Join(dir, "log")
			data, _ := os.ReadFile(path)
			good, bad := parse(t, bytes.NewReader(data))
			var want []string
			if old != "" {
				want = append(want, old)
			}
			var syncErr *SyncError
			if errors.As(err, &syncErr) && syncErr.Unknown {
				want = append(want, "new")
			}
			assert.Equal(t, want, good)
			if s.failed() == "write log" {
				assert.ErrorIs(t, err, syscall.ENOSPC)
			}
			if !s.forever {
				assert.Empty(t, bad, "what a failed write left is cut back")
			}
			require.NoError(t, Append(path, []byte("next")))
			good, _ = parse(t, strings.NewReader(read(t, path)))
			assert.Equal(t, append(want, "next"), good)
		})
	}
}

func TestAppendsAtTheSameTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	const writers, each = 4, 25
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				assert.NoError(t, Append(path, fmt.Appendf(nil, `{"w":%d,"i":%d}`, w, i)))
			}
		})
	}
	wg.Wait()
	good, bad := parse(t, strings.NewReader(read(t, path)))
	assert.Empty(t, bad)
	assert.Len(t, good, writers*each)
	next := make([]int, writers)
	for _, object := range good {
		var w, i int
		_, err := fmt.Sscanf(object, `{"w":%d,"i":%d}`, &w, &i)
		require.NoError(t, err)
		assert.Equal(t, next[w], i, "in order")
		next[w]++
	}
}

func TestReadLines(t *testing.T) {
	const (
		padded = `{"n":108}` // chosen for its checksum, 0x7d401
		zeros  = padded + " 0007d401"
		spaces = padded + "    7d401"
	)
	for _, c := range []struct {
		name, text string
		good, bad  []string
	}{
		{"nothing", "", nil, nil},
		{"one line", "x 8cdc1683\n", []string{"x"}, nil},
		{"no newline", "x 8cdc1683", []string{"x"}, nil},
		{"padded with zeros", zeros + "\n", []string{padded}, nil},
		{"padded with spaces", spaces + "\n", []string{padded}, nil},
		{"not padded", strings.Replace(spaces, "  ", " ", 1) + "\n", nil, []string{"line 1 at offset 0: no checksum, torn: false"}},
		{"torn", "x 8cdc1683\nx 8cdc16", []string{"x"}, []string{"line 2 at offset 11: no checksum, torn: true"}},
		{"goes on after a bad one", "x 8cdc1684\nx 8cdc1683\n", []string{"x"}, []string{"line 1 at offset 0: wrong checksum, torn: false"}},
		{"upper case", "x 8CDC1683\n", nil, []string{"line 1 at offset 0: wrong checksum, torn: false"}},
		{"empty line", "\nx 8cdc1683\n", []string{"x"}, []string{"line 1 at offset 0: no checksum, torn: false"}},
		{"empty object", " 00000000\n", nil, []string{"line 1 at offset 0: no checksum, torn: false"}},
		{"empty object, spaces", "        0\n", nil, []string{"line 1 at offset 0: no checksum, torn: false"}},
		{"two spaces", "x  8cdc1683\n", nil, []string{"line 1 at offset 0: wrong checksum, torn: false"}},
		{"carriage return", "x 8cdc1683\r\n", nil, []string{"line 1 at offset 0: no checksum, torn: false"}},
		{"zeros", "x 8cdc1683\n\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", []string{"x"}, []string{"line 2 at offset 11: no checksum, torn: true"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, r := range []io.Reader{
				strings.NewReader(c.text),
				iotest.OneByteReader(strings.NewReader(c.text)),
				iotest.DataErrReader(strings.NewReader(c.text)),
			} {
				good, bad := parse(t, r)
				assert.Equal(t, c.good, good)
				assert.Equal(t, c.bad, bad)
			}
		})
	}
}

// Every flip of one bit in a line is noticed, and spoils no other line.
func TestReadLinesNoticesEachFlippedBit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for _, object := range []string{`{"n":1}`, `{"n":2}`, `{"n":3}`} {
		require.NoError(t, Append(path, []byte(object)))
	}
	contents := read(t, path)
	third := len(contents) / 3
	for bit := third * 8; bit < (2*third-1)*8; bit++ { // the second line without its newline
		damaged := []byte(contents)
		damaged[bit/8] ^= 1 << (bit % 8)
		good, bad := parse(t, bytes.NewReader(damaged))
		assert.Equal(t, []string{`{"n":1}`, `{"n":3}`}, good, "bit %d", bit)
		assert.NotEmpty(t, bad)
	}
}

// A file that is one endless line takes no memory to speak of.
func TestReadLinesIsBounded(t *testing.T) {
	endless := io.MultiReader(io.LimitReader(forever('x'), 4*MaxObject), strings.NewReader("\nx 8cdc1683\n"))
	var lines []Line
	var errs []error
	for line, err := range ReadLines(endless) {
		lines, errs = append(lines, line), append(errs, err)
	}
	require.Len(t, lines, 2)
	assert.EqualError(t, errs[0], "line 1 at offset 0: line too long")
	assert.Len(t, lines[0].Object, MaxObject)
	assert.NoError(t, errs[1])
	assert.Equal(t, int64(4*MaxObject+1), lines[1].Offset)
}

type forever byte

func (b forever) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}

func TestReadLinesReportsAReadError(t *testing.T) {
	errDisk := errors.New("disk on fire")
	r := io.MultiReader(strings.NewReader("x 8cdc1683\nx 8cd"), iotest.ErrReader(errDisk))
	var errs []error
	for _, err := range ReadLines(r) {
		errs = append(errs, err)
	}
	assert.Equal(t, []error{nil, errDisk}, errs, "an error is not the end of the file")
	for range ReadLines(strings.NewReader("x 8cdc1683\nbad\nx 8cdc1683\n")) {
		break // must not go on
	}
}
