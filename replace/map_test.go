package replace

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

// mapped maps a new file of the given contents.
func mapFile(t *testing.T, data []byte) (path string, m *Mapping) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "file")
	require.NoError(t, WriteFile(path, data))
	f, err := OS.OpenFile(path, os.O_RDONLY, 0)
	require.NoError(t, err)
	m, err = Map(f, int64(len(data)))
	if errors.Is(err, errors.ErrUnsupported) {
		f.Close()
		t.Skip("files can't be mapped here")
	}
	require.NoError(t, err)
	require.NoError(t, f.Close(), "a mapping does not need its file")
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return path, m
}

func TestMappingReadsAsTheFileDoes(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 1000)
	path, m := mapFile(t, data)
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	for _, off := range []int64{0, 1, 4095, 9990, 9999, 10_000, 10_001, 1 << 40} {
		for _, n := range []int{1, 10, 5000, 20_000} {
			want, got := make([]byte, n), make([]byte, n)
			wantN, wantErr := file.ReadAt(want, off)
			gotN, gotErr := m.ReadAt(got, off)
			require.Equal(t, wantN, gotN)
			require.Equal(t, wantErr, gotErr)
			require.Equal(t, want, got)
		}
	}
	_, err = m.ReadAt(make([]byte, 1), -1)
	require.Error(t, err)
}

// A file that somebody has cut off under the mapping would end the process with
// SIGBUS, in any goroutine that reads it.
func TestFaultIsAnErrorAndNoSignal(t *testing.T) {
	page := os.Getpagesize()
	path, m := mapFile(t, bytes.Repeat([]byte("x"), 3*page))
	require.NoError(t, os.Truncate(path, int64(page)))
	buf := make([]byte, 10)
	for range 3 {
		n, err := m.ReadAt(buf, int64(2*page))
		require.ErrorIs(t, err, ErrFault)
		require.ErrorContains(t, err, "offset")
		require.Zero(t, n)
		n, err = m.ReadAt(make([]byte, 2*page), 0)
		require.ErrorIs(t, err, ErrFault, "in the middle of a copy")
		require.Zero(t, n)
		n, err = m.ReadAt(buf, 0)
		require.NoError(t, err, "what is there can be read")
		require.Equal(t, 10, n)
	}
	require.False(t, debug.SetPanicOnFault(false), "the goroutine is as it was")
}

func TestCopyMappedStopsAtWhatIsGone(t *testing.T) {
	page := os.Getpagesize()
	data := bytes.Repeat([]byte("0123456789abcdef"), 3*page/16)
	path, m := mapFile(t, data)
	parts := [][]byte{m.Bytes()[10:15], m.Bytes()[3:7], {}, m.Bytes()[2*page : 2*page+3], m.Bytes()[:2]}
	room := make([]byte, 20)
	require.Equal(t, 5, CopyMapped(room, parts))
	require.Equal(t, "abcde345601201", string(room[:14]))
	require.Zero(t, CopyMapped(nil, nil))

	require.NoError(t, os.Truncate(path, int64(page)))
	clear(room)
	require.Equal(t, 3, CopyMapped(room, parts), "the fourth can't be had")
	require.Equal(t, "abcde3456", string(room[:9]))
	require.Equal(t, 1, CopyMapped(room[9:], parts[4:]), "what lies behind it can")
	require.False(t, debug.SetPanicOnFault(false), "the goroutine is as it was")
}

func TestWhatIsNoFaultPanicsOn(t *testing.T) {
	require.PanicsWithValue(t, "x", func() { fault("x", 0) })
	require.Panics(t, func() { fault(io.EOF, 0) })
}

func TestWhatCannotBeMappedSaysSo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, WriteFile(path, []byte("x")))
	f, err := OS.OpenFile(path, os.O_RDONLY, 0)
	require.NoError(t, err)
	defer f.Close()
	_, err = Map(f, 0)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	_, err = Map(struct{ File }{f}, 1)
	require.ErrorIs(t, err, errors.ErrUnsupported)
}

func BenchmarkMappingReadAt(b *testing.B) {
	path := filepath.Join(b.TempDir(), "file")
	require.NoError(b, WriteFile(path, make([]byte, 1<<20)))
	f, err := OS.OpenFile(path, os.O_RDONLY, 0)
	require.NoError(b, err)
	defer f.Close()
	buf := make([]byte, 150)
	b.Run("file", func(b *testing.B) {
		for b.Loop() {
			f.ReadAt(buf, 5000)
		}
	})
	m, err := Map(f, 1<<20)
	if err != nil {
		b.Skip(err)
	}
	defer m.Close()
	b.Run("mapping", func(b *testing.B) {
		for b.Loop() {
			m.ReadAt(buf, 5000)
		}
	})
}
