package annals

import (
	"bytes"
	"fmt"
	"iter"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// longStore has enough keys that a scan reads ahead, in some segments, the older half
// of them in the order of keys.
func longStore(t *testing.T) *Store {
	t.Helper()
	db := open(t, &Options{SegmentSize: 32 << 10, Sync: SyncNever, Compaction: Compaction{Off: true}})
	for half := range 2 {
		var b Batch
		for i := range 3000 {
			n := (i*1237 + half) % 3000
			if half == 0 || n%2 == 0 {
				b.Put(fmt.Sprintf("key%04d", n), longValue(n, half))
			}
		}
		_, err := db.Apply(&b)
		require.NoError(t, err)
		if half == 0 {
			compactAll(t, db)
		}
	}
	return db
}

// longValue is of any length and spelling.
func longValue(n, half int) []byte {
	v := bytes.Repeat([]byte{"x\xff\n"[n%3]}, n%700)
	if n%1000 == 7 {
		v = bytes.Repeat(v, 200)
	}
	return fmt.Append(v, "-", n, "-", half)
}

// noReaders makes sure that no goroutine reads ahead. Of one that has said that it is
// at its end, the last instructions may be to come.
func noReaders(t *testing.T, what string) {
	t.Helper()
	require.Eventually(t, func() bool {
		stacks := make([]byte, 1<<20)
		return !strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "(*ahead).run(")
	}, 10*time.Second, time.Millisecond, what)
}

func TestScanAheadGivesEveryRowOnce(t *testing.T) {
	db := longStore(t)
	for _, limit := range []int{0, 1, 15, 16, 17, 80, 81, 592, 593, 594, 2999, 3000, 3001} {
		for _, reverse := range []bool{false, true} {
			var kept [][]byte
			n := 0
			for e, err := range db.Scan(Range{Limit: limit, Reverse: reverse}) {
				require.NoError(t, err)
				want := n
				if reverse {
					want = 2999 - n
				}
				require.Equal(t, fmt.Sprintf("key%04d", want), e.Key)
				kept = append(kept, append(e.Value, "the caller's"...)[:len(e.Value)])
				n++
			}
			if limit == 0 || limit > 3000 {
				require.Equal(t, 3000, n)
			} else {
				require.Equal(t, limit, n)
			}
			for i, v := range kept {
				if reverse {
					i = 2999 - i
				}
				require.Equal(t, longValue(i, (i+1)%2), v, "a value stays as it was yielded")
			}
		}
	}
	noReaders(t, "at the end")
}

// The empty key is the last one of a chunk: as a bound it would be none, and all rows
// would come again.
func TestScanBackwardsEndsAtTheEmptyKey(t *testing.T) {
	db := open(t, nil)
	var b Batch
	b.Put("", []byte("v"))
	for n := 1; n < 200; n++ {
		b.Put(fmt.Sprintf("%03d", n), []byte("v"))
		if n < firstChunk-1 {
			continue
		}
		_, err := db.Apply(&b)
		require.NoError(t, err)
		b = Batch{}
		require.Len(t, scan(t, db, Range{Reverse: true}), n+1)
	}
}

func TestScanAheadEndsWithTheLoop(t *testing.T) {
	db := longStore(t)
	for _, stop := range []int{1, 80, 81, 100, 700, 2999} {
		n := 0
		for range db.Scan(Range{}) {
			if n++; n == stop {
				break
			}
		}
		noReaders(t, fmt.Sprint("left at row ", stop))
		n = 0
		require.Panics(t, func() {
			for range db.Scan(Range{}) {
				if n++; n == stop {
					panic("in the loop")
				}
			}
		})
		noReaders(t, fmt.Sprint("panic at row ", stop))
	}
	next, stop := iter.Pull2(db.Scan(Range{}))
	for range 200 {
		next()
	}
	stop()
	noReaders(t, "at the end")
}

// Whatever was read ahead, a loop over something closed says so, once.
func TestScanAheadEndsWithErrClosed(t *testing.T) {
	for _, what := range []string{"snapshot", "store"} {
		for _, at := range []int{1, 16, 80, 81, 100, 600, 2999} {
			db := longStore(t)
			s := db.Snapshot()
			var errs []error
			n := 0
			for _, err := range s.Scan(Range{}) {
				if n++; err != nil {
					errs = append(errs, err)
				}
				if n == at {
					if what == "store" {
						require.NoError(t, db.Close())
					} else {
						require.NoError(t, s.Close())
					}
				}
			}
			require.Equal(t, []error{ErrClosed}, errs, "%s at %d", what, at)
			require.Equal(t, at+1, n)
			require.NoError(t, s.Close())
		}
	}
	noReaders(t, "at the end")
}

// Scans and reads at the same time as writes, compaction and closing: nobody reads a
// segment that was let go, and in the end all of them are.
func TestReadersHoldTheirSegments(t *testing.T) {
	db := longStore(t)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				snapshot := db.Snapshot()
				wg.Go(func() { snapshot.Close() })
				for e, err := range snapshot.Scan(Range{From: fmt.Sprintf("key%04d", (g*700+i*31)%3000), Limit: 1000}) {
					if err == ErrClosed {
						break
					}
					n, _ := strconv.Atoi(e.Key[len("key"):])
					if err != nil || !bytes.Contains(e.Value, fmt.Appendf(nil, "-%d-", n)) {
						t.Errorf("%q: %v", e.Key, err)
						return
					}
				}
				_, err := db.Get(fmt.Sprintf("key%04d", 1+(g+i*17)%2999))
				if err == ErrClosed {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for round := range 20 {
		var b Batch
		for i := range 300 {
			n := (i*7 + round*13) % 3000
			b.Put(fmt.Sprintf("key%04d", n), longValue(n, round))
		}
		_, err := db.Apply(&b)
		require.NoError(t, err)
		if round%4 == 3 {
			compactAll(t, db)
		}
	}
	require.NoError(t, db.Close())
	wg.Wait()
	noReaders(t, "at the end")
	require.Nil(t, db.files.current.Load())
}

// The last hold to go lets go, in whatever lanes and order they went.
func TestVersionGoesWithItsLastHolder(t *testing.T) {
	for range 200 {
		closed := make(chan struct{})
		f := &segmentFile{number: 1, Closer: closeFunc(func() error { close(closed); return nil })}
		fs := newFiles([]*segmentFile{f}, func(*segmentFile) {})
		var wg sync.WaitGroup
		for n := range 8 {
			wg.Go(func() {
				for {
					v := fs.enter(n % 3)
					if v == nil {
						return
					}
					select {
					case <-closed:
						t.Error("closed while it is held")
					default:
					}
					v.leave(n % 3)
				}
			})
		}
		time.Sleep(10 * time.Microsecond)
		require.NoError(t, fs.close())
		wg.Wait()
		select {
		case <-closed:
		default:
			t.Fatal("nobody holds it, and it is open")
		}
	}
}

type closeFunc func() error

func (f closeFunc) Close() error { return f() }

// Sealed segments are mapped at Open, at rotation and by compaction.
func TestSealedSegmentsAreMapped(t *testing.T) {
	db := longStore(t)
	check := func(when string) {
		t.Helper()
		v := db.files.acquire()
		defer v.release()
		m := db.manifest.copy()
		require.NotEmpty(t, m.Sealed)
		for i := range m.Sealed {
			f := v.byID[m.Sealed[i].Segment]
			if f.mapped.Load() == nil && runtime.GOOS == "windows" {
				t.Skip("files are not mapped here")
			}
			require.NotNil(t, f.mapped.Load(), "segment %d, %s", f.number, when)
		}
	}
	check("after rotation and compaction")
	db = reopen(t, db, nil)
	check("after Open")
}

// A mapped file that is cut off is an error with file and offset, and no signal.
func TestCutOffUnderTheMapping(t *testing.T) {
	db := longStore(t)
	require.NoError(t, db.Close())
	dir := killed(t, db)
	db = openDamaged(t, dir, nil)
	paths := segmentsIn(t, dir)
	for _, path := range paths {
		require.NoError(t, os.Truncate(path, 4096))
	}
	require.NotEmpty(t, paths)
	bad, good := 0, 0
	for e, err := range db.Scan(Range{}) {
		if err == nil {
			good++
			continue
		}
		bad++
		var damage *CorruptError
		require.ErrorAs(t, err, &damage)
		require.Contains(t, paths, damage.Path)
		require.NotZero(t, damage.Offset)
		_, again := db.Get(e.Key)
		require.ErrorAs(t, again, &damage)
	}
	require.Equal(t, 3000, good+bad)
	require.Greater(t, bad, 1000)
	require.NotZero(t, good)
}
