//go:build linux || darwin || freebsd

package replace

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func mapWords(t *testing.T, size int64) (File, *Words) {
	file, err := OS.OpenFile(filepath.Join(t.TempDir(), "words"), os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(t, err)
	t.Cleanup(func() { file.Close() })
	require.NoError(t, file.Truncate(size))
	w, err := file.(WordMapper).MapWords(512, 2)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.Close()) })
	return file, w
}

func TestWordsAreInTheFileAtOnce(t *testing.T) {
	file, w := mapWords(t, 528)
	require.NoError(t, w.Store(0, 0x0102030405060708))
	require.NoError(t, w.Store(1, 7))
	var b [16]byte
	_, err := file.ReadAt(b[:], 512)
	require.NoError(t, err)
	require.EqualValues(t, 0x0102030405060708, binary.LittleEndian.Uint64(b[:]))
	require.EqualValues(t, 7, binary.LittleEndian.Uint64(b[8:]))

	binary.LittleEndian.PutUint64(b[:], 99)
	_, err = file.WriteAt(b[:8], 512)
	require.NoError(t, err)
	n, err := w.Load(0)
	require.NoError(t, err)
	require.EqualValues(t, 99, n)
	require.Zero(t, testing.AllocsPerRun(100, func() { w.Store(0, n) }))
}

// A file that is cut under its mapping must not end the process by a signal.
func TestWordsOfAFileThatWasCut(t *testing.T) {
	file, w := mapWords(t, 528)
	require.NoError(t, file.Truncate(0))
	require.ErrorIs(t, w.Store(0, 1), ErrUnmapped)
	_, err := w.Load(1)
	require.ErrorIs(t, err, ErrUnmapped)
	require.NoError(t, file.Truncate(528))
	require.NoError(t, w.Store(0, 1), "the memory is there again")
}

func TestWordsAfterClose(t *testing.T) {
	_, w := mapWords(t, 528)
	require.NoError(t, w.Close())
	require.ErrorIs(t, w.Store(0, 1), ErrUnmapped)
	require.NoError(t, w.Close())
}

func TestWordsOutsideTheFirstPage(t *testing.T) {
	file, _ := mapWords(t, 1<<20)
	for _, c := range []struct {
		off int64
		n   int
	}{{-8, 1}, {4, 1}, {4096, 1}, {4088, 2}, {0, 0}} {
		_, err := file.(WordMapper).MapWords(c.off, c.n)
		require.Error(t, err)
	}
	_, w := mapWords(t, 528)
	require.Panics(t, func() { w.Store(2, 1) }, "a mistake is no fault")
}

// A reader's words are those of the writer, and it can't change them.
func TestWordsOfAFileOpenForReading(t *testing.T) {
	file, w := mapWords(t, 528)
	reader, err := OS.OpenFile(file.(interface{ Name() string }).Name(), os.O_RDONLY, 0)
	require.NoError(t, err)
	defer reader.Close()
	seen, err := reader.(WordMapper).MapWords(512, 2)
	require.NoError(t, err)
	defer seen.Close()
	for n := range uint64(3) {
		require.NoError(t, w.Store(1, n))
		have, err := seen.Load(1)
		require.NoError(t, err)
		require.Equal(t, n, have)
	}
	require.ErrorIs(t, seen.Store(0, 9), ErrUnmapped)
	have, err := w.Load(0)
	require.NoError(t, err)
	require.Zero(t, have)
}
