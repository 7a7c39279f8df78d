package annals

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

// serving is a reader beside a store, which does not follow by itself.
func serving(t testing.TB, db *Store) *Reader {
	t.Helper()
	r := openReader(t, db.dir)
	if s := r.lookout.look(); s.writer != writerServes {
		require.FailNow(t, "the writer is not seen")
	}
	return r
}

// Beside a live writer only what is durable is shown, whatever is in the file already.
func TestReaderBesideAWriterShowsOnlyWhatIsDurable(t *testing.T) {
	db := open(t, &Options{Sync: SyncEvery(time.Hour)})
	put(t, db, "a", "1")
	_, err := db.Sync(t.Context())
	require.NoError(t, err)
	put(t, db, "b", "2")
	path := filepath.Join(db.dir, segment.Name(db.manifest.copy().Open))
	eventually(t, "the second put is in the file", func() bool {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		return strings.Contains(string(text), `"key":"b"`)
	})
	r := serving(t, db)
	present(t, r, "a", "1")
	absent(t, r, "b")
	require.NoError(t, r.Refresh())
	absent(t, r, "b")
	require.EqualValues(t, 1, r.Stats().LastSeq)

	_, err = db.Sync(t.Context())
	require.NoError(t, err)
	absent(t, r, "b")
	require.NoError(t, r.Refresh())
	present(t, r, "b", "2")
	require.EqualValues(t, 2, r.Stats().LastSeq)
}

// Once the writer is gone the log itself says what is there.
func TestReaderOfAKilledWriterShowsWhatTheLogHolds(t *testing.T) {
	db := openDamaged(t, filepath.Join(t.TempDir(), "store"), &Options{Sync: SyncEvery(time.Hour)})
	put(t, db, "a", "1")
	_, err := db.Sync(t.Context())
	require.NoError(t, err)
	put(t, db, "b", "2")
	r := serving(t, db)
	path := filepath.Join(db.dir, segment.Name(db.manifest.copy().Open))
	eventually(t, "the second put is in the file", func() bool {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		return strings.Contains(string(text), `"key":"b"`)
	})
	absent(t, r, "b")
	require.NoError(t, db.lock.release()) // as a kill does
	require.NoError(t, r.Refresh())
	present(t, r, "b", "2")
	require.True(t, r.now().judged)
}

// Rotations and compactions of what was read move entries; nothing is read anew, and
// snapshots stay what they are.
func TestRefreshGoesOnOverRotationsAndCompactions(t *testing.T) {
	db := open(t, &Options{SegmentSize: minSegment, Compaction: Compaction{Off: true}})
	want := model{}
	var all []Sample
	write := func(n int) {
		for i := range n {
			key, value := fmt.Sprint("k", (n+i)%37), fmt.Sprint(len(all), strings.Repeat("v", 50))
			put(t, db, key, value)
			want[key] = value
			if i%5 == 0 {
				gone := fmt.Sprint("k", i%37)
				del(t, db, gone)
				delete(want, gone)
			}
			at := time.UnixMicro(int64(1_000_000 + len(all)))
			seq, err := db.Append("s", []byte(value), At(at))
			require.NoError(t, err)
			all = append(all, Sample{Series: "s", Seq: seq, At: at, Value: []byte(value)})
		}
	}
	write(100)
	r := serving(t, db)
	state := r.now()
	for i := range 12 {
		before, kept := r.Snapshot(), model{}
		for k, v := range want {
			kept[k] = v
		}
		write(20 + 10*i)
		if i%4 != 3 { // else it is overtaken
			require.NoError(t, r.Refresh())
			want.holds(t, r)
		}
		if i%2 == 1 {
			compactAll(t, db)
		}
		require.NoError(t, r.Refresh())
		want.holds(t, r)
		require.Equal(t, plain(all), plain(samples(t, r, "s", Window{})))
		require.Equal(t, series(t, db), series(t, r))
		require.Equal(t, db.Stats().Keys, r.Stats().Keys)
		require.Equal(t, db.Stats().LiveBytes, r.Stats().LiveBytes)
		require.Equal(t, i%4 != 3, r.now() == state, "round %d", i)
		state = r.now()
		kept.holds(t, before)
		require.NoError(t, before.Close())

		backup := filepath.Join(t.TempDir(), "backup")
		require.NoError(t, r.Backup(t.Context(), backup))
		isCopy(t, backup, want, all)
	}
}

// A reader that follows needs no Refresh.
func TestReaderFollows(t *testing.T) {
	db := open(t, &Options{SegmentSize: minSegment})
	put(t, db, "k", "0")
	r, err := OpenReader(db.dir, &ReaderOptions{Follow: true})
	require.NoError(t, err)
	defer r.Close()
	for i := range 300 {
		put(t, db, "k", fmt.Sprint(i))
		if i%50 == 0 {
			eventually(t, "the reader shows it", func() bool {
				v, err := r.Get("k")
				require.NoError(t, err)
				return string(v) == fmt.Sprint(i)
			})
		}
	}
	require.Empty(t, r.Stats().Failed)
}

// A watcher of a reader is told what compaction has taken, and goes on from there.
func TestReaderWatchIsToldThatHistoryIsGone(t *testing.T) {
	db := open(t, &Options{Compaction: Compaction{Off: true}})
	for i := range 10 {
		put(t, db, "k", fmt.Sprint(i))
	}
	r := serving(t, db)
	compactAll(t, db)
	put(t, db, "k", "new")
	require.NoError(t, r.Refresh())
	var gone *CompactedError
	require.ErrorAs(t, firstError(r.Watch(t.Context(), 1)), &gone)
	require.EqualValues(t, 11, gone.First)
	require.EqualValues(t, 11, take(t, r.Watch(t.Context(), gone.First), 1)[0].Seq)
}

// damagedBeside damages record 3 of 6 in the segment that is being written.
func damagedBeside(t *testing.T, db *Store) {
	t.Helper()
	for i := 1; i <= 6; i++ {
		put(t, db, fmt.Sprint("k", i), fmt.Sprint("value ", i))
	}
	file, err := os.OpenFile(filepath.Join(db.dir, segment.Name(db.manifest.copy().Open)), os.O_RDWR, 0)
	require.NoError(t, err)
	defer file.Close()
	text, err := os.ReadFile(file.Name())
	require.NoError(t, err)
	_, err = file.WriteAt([]byte{'V'}, int64(strings.Index(string(text), "value 3")))
	require.NoError(t, err)
}

// A damaged line that a reader meets beside a writer is reported, and the reader shows
// what was before it, or, told so, goes on behind it.
func TestReaderMeetsDamageBesideAWriter(t *testing.T) {
	db := openDamaged(t, filepath.Join(t.TempDir(), "store"), nil)
	put(t, db, "k0", "value 0")
	r := serving(t, db)
	bold, err := OpenReader(db.dir, &ReaderOptions{SkipDamage: true})
	require.NoError(t, err)
	defer bold.Close()
	damagedBeside(t, db)

	var damage *CorruptError
	for range 2 {
		require.ErrorAs(t, r.Refresh(), &damage)
		require.Equal(t, []uint64{4, 7}, []uint64{damage.FirstSeq, damage.LastSeq})
		present(t, r, "k2", "value 2")
		absent(t, r, "k4")
		require.Equal(t, damage.Error(), r.Stats().Failed)
	}
	require.ErrorIs(t, firstError(r.Watch(t.Context(), 4)), ErrCorrupt)
	_, err = OpenReader(db.dir, nil)
	require.ErrorIs(t, err, ErrCorrupt)

	require.NoError(t, bold.Refresh())
	again, err := OpenReader(db.dir, &ReaderOptions{SkipDamage: true})
	require.NoError(t, err)
	defer again.Close()
	for name, r := range map[string]*Reader{"that goes on": bold, "that was opened then": again} {
		t.Run("a reader "+name, func(t *testing.T) {
			absent(t, r, "k3")
			present(t, r, "k6", "value 6")
			require.Len(t, r.Stats().Damage, 1)
			var seen []uint64
			for rec, err := range r.Watch(t.Context(), 1) {
				if err != nil {
					require.ErrorAs(t, err, &damage)
					require.Equal(t, []uint64{4, 4}, []uint64{damage.FirstSeq, damage.LastSeq})
					continue
				}
				if seen = append(seen, rec.Seq); rec.Seq == 7 {
					break
				}
			}
			require.Equal(t, []uint64{1, 2, 3, 5, 6, 7}, seen)
		})
	}
}

// SkipDamage opens stores that Open refuses; what can be read is read.
func TestSkipDamageReadsWhatIsLeft(t *testing.T) {
	db, want, all := filled(t, &Options{SegmentSize: minSegment, Compaction: Compaction{Off: true}})
	require.NoError(t, db.Close())
	for name, change := range map[string]func(path string){
		"a bad line":           func(path string) { flip(t, path, `"key"`) },
		"a missing segment":    func(path string) { require.NoError(t, os.Remove(path)) },
		"an empty segment":     func(path string) { require.NoError(t, os.Truncate(path, 0)) },
		"another segment":      func(path string) { require.NoError(t, os.Rename(segmentsIn(t, filepath.Dir(path))[0], path)) },
		"a segment that's cut": func(path string) { require.NoError(t, os.Truncate(path, 3000)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyDir(t, db.dir)
			change(segmentsIn(t, dir)[2])
			refused(t, dir, ErrCorrupt)
			r, err := OpenReader(dir, &ReaderOptions{SkipDamage: true})
			require.NoError(t, err)
			defer r.Close()
			require.NotEmpty(t, r.Stats().Damage)
			have := scan(t, r, Range{})
			require.NotEmpty(t, have)
			known := 0
			for _, row := range have {
				key, value, _ := strings.Cut(row, "=")
				if want[key] == value {
					known++
				}
			}
			require.Greater(t, known, len(want)/3)
			found, told := 0, 0
			for _, err := range r.Samples("s", Window{}) {
				if err == nil {
					found++
				} else {
					require.ErrorIs(t, err, ErrCorrupt)
					told++
				}
			}
			require.NotZero(t, told)
			require.NotZero(t, found)
			require.Less(t, found, len(all)+1)
		})
	}
}

// Whoever goes on behind damage in a Watch of the Store gets every good record.
func TestWatchGoesOnBehindDamage(t *testing.T) {
	db := openDamaged(t, filepath.Join(t.TempDir(), "store"), nil)
	damagedBeside(t, db)
	var seen []uint64
	var lost []string
	for rec, err := range db.Watch(t.Context(), 1) {
		if damage := (*CorruptError)(nil); errors.As(err, &damage) {
			lost = append(lost, fmt.Sprint(damage.FirstSeq, " to ", damage.LastSeq))
			continue
		}
		require.NoError(t, err)
		if seen = append(seen, rec.Seq); rec.Seq == 6 {
			break
		}
	}
	require.Equal(t, []uint64{1, 2, 4, 5, 6}, seen)
	require.Equal(t, []string{"3 to 3"}, lost)
}

// Where LOCK can't be read, nothing is known of a writer, and the log is judged each time.
func TestReaderWithoutTheRightToReadLock(t *testing.T) {
	db := open(t, &Options{Compaction: Compaction{Off: true}})
	put(t, db, "k", "1")
	r, err := OpenReader(db.dir, &ReaderOptions{FS: lockless{replace.OS}})
	require.NoError(t, err)
	defer r.Close()
	present(t, r, "k", "1")
	put(t, db, "k", "2")
	require.NoError(t, r.Refresh())
	present(t, r, "k", "2")
	put(t, db, "k", "3")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	require.Len(t, take(t, r.Watch(ctx, 1), 3), 3)
}

// lockless is a file system in which LOCK can't be opened.
type lockless struct{ replace.FS }

func (l lockless) OpenFile(name string, flag int, perm os.FileMode) (replace.File, error) {
	if filepath.Base(name) == lockName {
		return nil, &os.PathError{Op: "open", Path: name, Err: os.ErrPermission}
	}
	return l.FS.OpenFile(name, flag, perm)
}
