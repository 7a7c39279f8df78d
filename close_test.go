package annals

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestClosedStoreSaysSoEverywhere(t *testing.T) {
	db := open(t, nil)
	put(t, db, "k", "v")
	before := db.Snapshot()
	require.NoError(t, db.Close())
	require.NoError(t, db.Close(), "closing twice does nothing")
	var b Batch
	b.Put("k", nil)
	errs := map[string]error{
		"Put":     db.Put("k", nil),
		"Delete":  db.Delete("k"),
		"Update":  db.Update(func(*Tx) error { t.Error("fn runs"); return nil }),
		"Scan":    firstError(db.Scan(Range{})),
		"Samples": firstError(db.Samples("s", Window{})),
		"Series":  firstError(db.Series()),
		"Watch":   firstError(db.Watch(t.Context(), 0)),
		"Backup":  db.Backup(t.Context(), t.TempDir()),
		"View":    db.View(func(s *Snapshot) error { _, err := s.Get("k"); return err }),

		"Snapshot, Scan":    firstError(before.Scan(Range{})),
		"Snapshot, Samples": firstError(before.Samples("s", Window{})),
		"Snapshot, Series":  firstError(before.Series()),
	}
	_, errs["Get"] = db.Get("k")
	_, errs["Lookup"] = db.Lookup("k")
	_, errs["Append"] = db.Append("s", nil)
	_, errs["Apply"] = db.Apply(&b)
	_, errs["Apply of nothing"] = db.Apply(&Batch{})
	_, errs["Submit"] = db.Submit(&b).Wait(t.Context())
	_, errs["Sync"] = db.Sync(t.Context())
	_, errs["Compact"] = db.Compact(t.Context(), nil)
	_, errs["Snapshot, Get"] = before.Get("k")
	for name, err := range errs {
		t.Run(name, func(t *testing.T) { require.ErrorIs(t, err, ErrClosed) })
	}
	require.NoError(t, before.Close())
	require.EqualValues(t, 1, db.Durable())
	require.EqualValues(t, 1, db.Stats().LastSeq)
	require.Empty(t, db.Stats().Failed)
}

func TestCloseEndsLoops(t *testing.T) {
	db := open(t, nil)
	for i := range 10 {
		put(t, db, fmt.Sprint(i), "v")
	}
	var got []error
	for _, err := range db.Scan(Range{}) {
		if got = append(got, err); len(got) == 3 {
			require.NoError(t, db.Close())
		}
	}
	require.Len(t, got, 4)
	require.ErrorIs(t, got[3], ErrClosed)
}

func TestCloseFinishesWhatIsQueued(t *testing.T) {
	for _, policy := range []SyncPolicy{SyncAlways, SyncEvery(time.Hour), SyncNever} {
		t.Run(policy.String(), func(t *testing.T) {
			db := open(t, &Options{Sync: policy})
			var wg sync.WaitGroup
			var mu sync.Mutex
			want := model{}
			for g := range 16 {
				wg.Go(func() {
					for i := 0; ; i++ {
						key := fmt.Sprint(g, ".", i)
						var b Batch
						b.Put(key, []byte("v"))
						if _, err := db.Submit(&b).Wait(t.Context()); err != nil {
							require.ErrorIs(t, err, ErrClosed)
							return
						}
						mu.Lock()
						want[key] = "v"
						mu.Unlock()
					}
				})
			}
			eventually(t, "some writes", func() bool { return db.Stats().LastSeq > 200 })
			within(t, "Close", func() { require.NoError(t, db.Close()) })
			within(t, "the writers", wg.Wait)
			db = reopen(t, db, nil)
			require.True(t, db.Recovery().Clean)
			want.holds(t, db)
		})
	}
}

// goroutines counts those that run code of this module, the caller's aside.
func goroutines() (n int) {
	buf := make([]byte, 1<<20)
	for i, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if i > 0 && strings.Contains(stack, "annalsdb/annals") && !strings.Contains(stack, "testing.tRunner") {
			n++
		}
	}
	return n
}

func TestCloseLeavesNoGoroutineBehind(t *testing.T) {
	before := goroutines()
	for _, policy := range []SyncPolicy{SyncAlways, SyncEvery(time.Millisecond), SyncNever} {
		db := open(t, &Options{Sync: policy, SegmentSize: minSegment})
		var b Batch
		for i := range 200 {
			b.Reset()
			b.Put("k", fmt.Append(nil, i))
			db.Submit(&b)
		}
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			for range db.Watch(t.Context(), 1) {
			}
		}()
		require.NoError(t, db.Close())
		<-watched
		r, err := OpenReader(db.dir, nil)
		require.NoError(t, err)
		require.NoError(t, r.Close())
	}
	eventually(t, "the goroutines end", func() bool { return goroutines() <= before })
}
