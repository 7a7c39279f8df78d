package annals

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/annalsdb/annals/segment"
	"github.com/stretchr/testify/require"
)

// small is a closed store of a few records in several segments.
func small(t *testing.T) (dir string) {
	t.Helper()
	db := open(t, &Options{SegmentSize: minSegment, Compaction: Compaction{Off: true}})
	for i := range 12 {
		put(t, db, fmt.Sprintf("k%02d", i), strings.Repeat("v", 1000))
	}
	require.NoError(t, db.Close())
	return copyDir(t, db.dir)
}

// whatever happens to a directory, Verify and Repair end, change nothing, and
// follow nothing out of it.
func TestWhatIsNoFileIsReportedAndNotFollowed(t *testing.T) {
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret")
	require.NoError(t, os.WriteFile(secret, []byte(withCRC(`{"seq":99,"key":"secret","val":1}`)), 0o600))
	for name, plant := range map[string]func(path string) error{
		"link to a file":      func(path string) error { return os.Symlink(secret, path) },
		"link to a directory": func(path string) error { return os.Symlink(outside, path) },
		"link to itself":      func(path string) error { return os.Symlink(path, path) },
		"link to nothing":     func(path string) error { return os.Symlink(filepath.Join(outside, "none"), path) },
		"link to a device":    func(path string) error { return os.Symlink("/dev/zero", path) },
		"pipe":                func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"directory":           func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		for _, victim := range []string{segment.Name(1), segment.Name(99), manifestName} {
			t.Run(name+" "+victim, func(t *testing.T) {
				dir := small(t)
				path := filepath.Join(dir, victim)
				if err := os.Remove(path); err != nil {
					require.ErrorIs(t, err, os.ErrNotExist)
				}
				require.NoError(t, plant(path))
				names := func() (list []string) {
					entries, err := os.ReadDir(dir)
					require.NoError(t, err)
					for _, e := range entries {
						list = append(list, e.Name()+e.Type().String())
					}
					return list
				}
				before := names()
				within(t, "verify and repair", func() {
					report, err := Verify(t.Context(), dir, nil)
					require.NoError(t, err)
					require.Len(t, report.Problems, 1)
					require.Equal(t, path, report.Problems[0].Path)
					require.Contains(t, report.Problems[0].Reason, "not a regular file")
					dest := filepath.Join(t.TempDir(), "dest")
					repair, err := Repair(t.Context(), dir, dest, nil)
					require.NoError(t, err)
					require.Equal(t, victim != segment.Name(1), repair.OK())
					verifyClean(t, dest)
					again := openAt(t, dest, nil)
					absent(t, again, "secret")
					present(t, again, "k11", strings.Repeat("v", 1000))
				})
				require.Equal(t, before, names())
			})
		}
	}
}

func TestQuarantineThatIsNoDirectory(t *testing.T) {
	for name, plant := range map[string]func(path string) error{
		"file":            func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"link to nothing": func(path string) error { return os.Symlink("none", path) },
		"link to itself":  func(path string) error { return os.Symlink(quarantineName, path) },
		"link elsewhere":  func(path string) error { return os.Symlink(t.TempDir(), path) },
		"pipe":            func(path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := small(t)
			require.NoError(t, plant(filepath.Join(dir, quarantineName)))
			within(t, "verify and repair", func() {
				report, err := Verify(t.Context(), dir, nil)
				require.NoError(t, err)
				require.Empty(t, report.Problems)
				flip(t, filepath.Join(dir, segment.Name(1)), `"key":"k00"`)
				dest := filepath.Join(t.TempDir(), "dest")
				repair, err := Repair(t.Context(), dir, dest, nil)
				require.NoError(t, err)
				require.Len(t, repair.Kept, 1)
				require.FileExists(t, repair.Kept[0].Path)
				verifyClean(t, dest)
			})
		})
	}
}

// A file of one line without an end, 1 TiB of nothing: a hole is not read, and what
// stands behind it is found.
func TestSparseFileWithoutAnEnd(t *testing.T) {
	for _, victim := range []string{segment.Name(1), segment.Name(99), manifestName} {
		t.Run(victim, func(t *testing.T) {
			dir := small(t)
			file, err := os.OpenFile(filepath.Join(dir, victim), os.O_WRONLY|os.O_CREATE, 0o600)
			require.NoError(t, err)
			require.NoError(t, file.Truncate(1<<40))
			last := withCRC(`{"seq":1,"key":"k00","txt":"` + strings.Repeat("v", 1000) + `"}`)
			_, err = file.WriteAt([]byte(last), 1<<40)
			require.NoError(t, err)
			require.NoError(t, file.Close())
			begun := time.Now()
			within(t, "verify and repair", func() { // to read the hole takes minutes
				report, err := Verify(t.Context(), dir, nil)
				require.NoError(t, err)
				require.Equal(t, victim == segment.Name(99), report.OK())
				dest := filepath.Join(t.TempDir(), "dest")
				repair, err := Repair(t.Context(), dir, dest, nil)
				require.NoError(t, err)
				require.EqualValues(t, 12, repair.Records)
				verifyClean(t, dest)
			})
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			t.Logf("%v, %d MiB from the system", time.Since(begun).Round(time.Millisecond), m.Sys>>20)
		})
	}
}

// Where holes can't be told, Ctrl-C works inside a line.
func TestAnEndlessLineCanBeInterrupted(t *testing.T) {
	dir := small(t)
	require.NoError(t, os.Truncate(filepath.Join(dir, segment.Name(1)), 1<<40))
	for name, work := range map[string]func(ctx context.Context) error{
		"verify": func(ctx context.Context) error {
			_, err := VerifyFS(ctx, newHookFS(), dir, nil) // its files know no holes
			return err
		},
		"repair": func(ctx context.Context) error {
			_, err := RepairFS(ctx, newHookFS(), dir, filepath.Join(t.TempDir(), "dest"), nil)
			return err
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		within(t, name, func() { require.ErrorIs(t, work(ctx), context.DeadlineExceeded) })
		cancel()
	}
}

func TestManyTinySegments(t *testing.T) {
	const n = 20_000
	dir := small(t)
	header := segment.Header{Store: verifyClean(t, dir).Store, First: 1}
	for i := range uint64(n) {
		header.Segment = 1000 + i
		require.NoError(t, os.WriteFile(filepath.Join(dir, segment.Name(header.Segment)), header.AppendLine(nil), 0o600))
	}
	report, err := Verify(t.Context(), dir, nil)
	require.NoError(t, err)
	require.True(t, report.OK())
	require.Len(t, report.Leftover, n)
	require.NoError(t, os.Remove(filepath.Join(dir, manifestName)))
	dest := filepath.Join(t.TempDir(), "dest")
	repair, err := Repair(t.Context(), dir, dest, nil)
	require.NoError(t, err)
	require.EqualValues(t, 12, repair.Records)
	verifyClean(t, dest)
}

// MANIFEST may claim anything with a right checksum.
func TestManifestWithHugeNumbers(t *testing.T) {
	const most = segment.MaxSeq
	for name, change := range map[string]func(m *segment.Manifest){
		"bytes":   func(m *segment.Manifest) { m.Sealed[0].Bytes = most },
		"records": func(m *segment.Manifest) { m.Sealed[0].Records = most },
		"range":   func(m *segment.Manifest) { m.Seq, m.Sealed[0].First, m.Sealed[0].Last = most, 1, most-1 },
		"dense range": func(m *segment.Manifest) {
			m.Seq, m.Sealed[0].First, m.Sealed[0].Last, m.Sealed[0].Records = most, 1, most-1, most-1
		},
		"next":       func(m *segment.Manifest) { m.Next = most },
		"seq":        func(m *segment.Manifest) { m.Seq = most },
		"generation": func(m *segment.Manifest) { m.Generation = most },
		"clock":      func(m *segment.Manifest) { m.Clock = segment.MaxTime - 1 },
		"a ghost": func(m *segment.Manifest) {
			m.Next, m.Sealed = most, append(m.Sealed, segment.Footer{Segment: most - 1, First: 1, Last: 1, Records: most, Bytes: most})
		},
		"an open ghost": func(m *segment.Manifest) { m.Open, m.Next = most-1, most },
	} {
		t.Run(name, func(t *testing.T) {
			dir := small(t)
			edit(t, filepath.Join(dir, manifestName), func(text []byte) []byte {
				m, err := segment.ParseManifest("", text)
				require.NoError(t, err)
				change(&m)
				return m.Append(nil)
			})
			_, err := Verify(t.Context(), dir, nil)
			require.NoError(t, err)
			dest := filepath.Join(t.TempDir(), "dest")
			repair, err := Repair(t.Context(), dir, dest, nil)
			require.NoError(t, err)
			require.EqualValues(t, 12, repair.Records)
			verifyClean(t, dest)
			again := openAt(t, dest, nil)
			if name != "clock" {
				put(t, again, "next", "1")
			}
		})
	}
}
