package annals

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// take returns the next n records of a Watch.
func take(t testing.TB, watch iter.Seq2[Record, error], n int) (list []Record) {
	t.Helper()
	if n == 0 {
		return nil
	}
	for r, err := range watch {
		require.NoError(t, err)
		if list = append(list, r); len(list) == n {
			break
		}
	}
	return list
}

func TestWatchYieldsEveryRecordOnceInOrder(t *testing.T) {
	for _, policy := range []SyncPolicy{SyncAlways, SyncEvery(2 * time.Millisecond), SyncNever} {
		t.Run(policy.String(), func(t *testing.T) {
			db := open(t, &Options{Sync: policy, SegmentSize: minSegment, Compaction: Compaction{Off: true}})
			const commits = 300
			var wg sync.WaitGroup
			wg.Go(func() {
				var b Batch
				for i := range commits {
					b.Reset()
					b.Put("k", fmt.Append(nil, i))
					if i%3 > 0 {
						b.Append("s", fmt.Append(nil, i), At(time.UnixMicro(int64(i))))
					}
					if i%3 > 1 {
						b.Delete("gone")
					}
					if _, err := db.Apply(&b); err != nil {
						t.Error(err)
					}
				}
			})
			next, commit, place := uint64(1), 0, 0
			within(t, "the watch", func() {
				for r, err := range db.Watch(t.Context(), 1) {
					if err != nil {
						t.Error(err)
						return
					}
					if policy != SyncNever && r.Seq > db.Durable() {
						t.Errorf("record %d is shown and not durable", r.Seq)
					}
					want := []Record{
						{Kind: KindPut, Key: "k", Value: fmt.Append(nil, commit)},
						{Kind: KindSample, Series: "s", Value: fmt.Append(nil, commit), At: time.UnixMicro(int64(commit))},
						{Kind: KindDelete, Key: "gone"},
					}[place]
					want.Seq, want.More = next, place < commit%3
					if fmt.Sprint(want) != fmt.Sprint(r) {
						t.Errorf("want %v, have %v", want, r)
						return
					}
					next++
					if place++; !r.More {
						commit, place = commit+1, 0
					}
					if commit == commits {
						break
					}
				}
			})
			wg.Wait()
			require.Greater(t, len(db.Stats().Segments), 3, "the watch went across segments")
		})
	}
}

func TestWatchCanBeResumedAnywhere(t *testing.T) {
	db := open(t, &Options{SegmentSize: minSegment, Compaction: Compaction{Off: true}})
	const n = 200
	for i := range n {
		put(t, db, "k", fmt.Sprint(i))
	}
	for _, from := range []uint64{0, 1, 2, 77, n} {
		list := take(t, db.Watch(t.Context(), from), n+1-int(max(from, 1)))
		require.Equal(t, max(from, 1), list[0].Seq)
		require.EqualValues(t, n, list[len(list)-1].Seq)
	}
	var seen []Record
	for len(seen) < n {
		seen = append(seen, take(t, db.Watch(t.Context(), uint64(len(seen))+1), min(7, n-len(seen)))...)
	}
	for i, r := range seen {
		require.EqualValues(t, i+1, r.Seq)
	}
}

func TestWatchWaitsForWhatComesNext(t *testing.T) {
	db := open(t, nil)
	for _, from := range []uint64{0, 1} {
		got := make(chan Record, 1)
		go func() {
			for r, err := range db.Watch(t.Context(), from) {
				if err != nil {
					t.Error(err)
				}
				got <- r
				break
			}
		}()
		if from == 0 {
			put(t, db, "k", "v")
		}
		within(t, "the record", func() { require.EqualValues(t, 1, (<-got).Seq) })
	}
}

func TestEndOfContextIsYieldedOnce(t *testing.T) {
	db := open(t, nil)
	put(t, db, "k", "v")
	ctx, cancel := context.WithCancel(t.Context())
	var got []error
	within(t, "the watch", func() {
		for _, err := range db.Watch(ctx, 1) {
			got = append(got, err)
			cancel()
		}
	})
	require.Len(t, got, 2)
	require.NoError(t, got[0])
	require.Equal(t, context.Canceled, got[1])
	require.Equal(t, context.Canceled, firstError(db.Watch(ctx, 0)))
}

func TestCloseEndsWatchers(t *testing.T) {
	db := open(t, nil)
	put(t, db, "k", "v")
	var wg sync.WaitGroup
	errs := make(chan error, 10)
	ready := make(chan struct{}, 10)
	for range 10 {
		wg.Go(func() {
			for _, err := range db.Watch(t.Context(), 1) {
				if err != nil {
					errs <- err
				} else {
					ready <- struct{}{}
				}
			}
		})
	}
	for range 10 {
		<-ready
	}
	require.NoError(t, db.Close())
	within(t, "the watchers", wg.Wait)
	require.Len(t, errs, 10)
	for range 10 {
		require.ErrorIs(t, <-errs, ErrClosed)
	}
}

func TestWatchBeyondTheEndIsAhead(t *testing.T) {
	db := open(t, nil)
	require.ErrorIs(t, firstError(db.Watch(t.Context(), 2)), ErrAhead)
	put(t, db, "k", "v")
	require.ErrorIs(t, firstError(db.Watch(t.Context(), 3)), ErrAhead)
	go put(t, db, "k", "v")
	require.EqualValues(t, 2, take(t, db.Watch(t.Context(), 2), 1)[0].Seq)
}

func TestWatchOfCompactedHistorySaysWhereToGoOn(t *testing.T) {
	db := open(t, nil)
	for range 10 {
		put(t, db, "k", "v")
	}
	compactAll(t, db)
	check := func() {
		var gone *CompactedError
		err := firstError(db.Watch(t.Context(), 1))
		require.ErrorAs(t, err, &gone)
		require.ErrorIs(t, err, ErrCompacted)
		require.EqualValues(t, 11, gone.First)
		require.EqualValues(t, 11, db.Stats().History)
	}
	check()
	db = reopen(t, db, nil)
	check()
	put(t, db, "k", "new")
	require.EqualValues(t, 11, take(t, db.Watch(t.Context(), 11), 1)[0].Seq)
	require.EqualValues(t, 11, take(t, db.Watch(t.Context(), 0), 1)[0].Seq)
}

// A watcher has paused. When it goes on, the records that it has not seen are gone:
// it must be told, never left to believe that it saw everything.
func TestWatcherThatCompactionOvertookIsTold(t *testing.T) {
	for _, kind := range []string{"keys", "samples"} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprint(kind, " more after: ", after), func(t *testing.T) {
				db := open(t, &Options{SegmentSize: minSegment, Compaction: Compaction{Off: true}})
				const n = 400
				var b Batch
				for i := range n {
					if kind == "keys" {
						b.Put("k", fmt.Append(nil, i))
					} else {
						b.Append("s", fmt.Append(nil, i))
					}
					if i%10 == 9 {
						_, err := db.Apply(&b)
						require.NoError(t, err)
						b.Reset()
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				defer cancel()
				next := uint64(1)
				var end error
				for r, err := range db.Watch(ctx, 1) {
					if end = err; err != nil {
						break
					}
					require.Equal(t, next, r.Seq, "no record is skipped in silence")
					if next++; r.Seq == 1 {
						compactAll(t, db)
						if after {
							put(t, db, "after", "v")
						}
					}
				}
				var gone *CompactedError
				require.ErrorAs(t, end, &gone, "after record %d", next-1)
				require.EqualValues(t, n+1, gone.First)
			})
		}
	}
}

func TestHistoryOptionKeepsTheNewestRecordsForWatch(t *testing.T) {
	opts := &Options{SegmentSize: minSegment, History: 100, Compaction: Compaction{Rate: 1 << 30}}
	db := open(t, opts)
	const n = 1000
	var b Batch
	for i := range n {
		b.Put("k", fmt.Append(nil, i))
		if b.Len() == 20 {
			_, err := db.Apply(&b)
			require.NoError(t, err)
			b.Reset()
		}
	}
	compactAll(t, db)
	require.Greater(t, db.Stats().History, uint64(1), "older ones were compacted")
	list := take(t, db.Watch(t.Context(), n-99), 100)
	require.EqualValues(t, n, list[99].Seq)
	db = reopen(t, db, opts)
	compactAll(t, db)
	require.Len(t, take(t, db.Watch(t.Context(), n-99), 100), 100)
}

func TestSnapshotThenWatchMissesNothing(t *testing.T) {
	db := open(t, nil)
	put(t, db, "a", "1")
	put(t, db, "b", "2")
	del(t, db, "b")
	follow := func(when string) {
		t.Helper()
		snapshot := db.Snapshot()
		defer snapshot.Close()
		next := db.Stats().LastSeq + 1
		go put(t, db, "a", "later "+when)
		for r, err := range db.Watch(t.Context(), snapshot.Seq()+1) {
			require.NoError(t, err, when)
			require.Equal(t, next, r.Seq, when)
			break
		}
		eventually(t, "the put", func() bool { return db.Stats().LastSeq == next })
	}
	follow("at once")
	db = reopen(t, db, nil)
	follow("reopened")
	put(t, db, "gone", "3")
	del(t, db, "gone")
	compactAll(t, db)
	follow("compacted")
	put(t, db, "gone", "3")
	del(t, db, "gone")
	compactAll(t, db)
	db = reopen(t, db, nil)
	follow("compacted and reopened")
}

// Recovery spends the numbers of the tail that it cuts off.
func TestWatchPassesAGapInTheNumbers(t *testing.T) {
	db := open(t, nil)
	put(t, db, "a", "1")
	var b Batch
	b.Put("b", []byte("2"))
	b.Put("c", []byte("3"))
	b.Put("d", []byte("4"))
	_, err := db.Apply(&b)
	require.NoError(t, err)
	dir := killed(t, db)
	edit(t, segmentsIn(t, dir)[0], func(text []byte) []byte {
		return text[:indexOf(t, text, `{"seq":4`)]
	})
	db = openAt(t, dir, nil)
	require.Equal(t, []string{"a=1"}, scan(t, db, Range{}))
	put(t, db, "e", "5")
	e, err := db.Lookup("e")
	require.NoError(t, err)
	require.Greater(t, e.Seq, uint64(3), "numbers of the tail are not given again")
	for _, from := range []uint64{0, 1} {
		list := take(t, db.Watch(t.Context(), from), 2)
		require.EqualValues(t, 1, list[0].Seq)
		require.Equal(t, e.Seq, list[1].Seq)
	}
	for from := uint64(2); from <= e.Seq; from++ {
		require.Equal(t, e.Seq, take(t, db.Watch(t.Context(), from), 1)[0].Seq)
	}
}

func TestSlowWatcherDoesNotHoldUpWriters(t *testing.T) {
	db := open(t, &Options{SegmentSize: 64 << 10, Compaction: Compaction{Off: true}})
	put(t, db, "k", "first")
	value := make([]byte, 10_000)
	paused, goOn := make(chan struct{}), make(chan struct{})
	last := make(chan uint64, 1)
	const n = 1000
	go func() {
		for r, err := range db.Watch(t.Context(), 1) {
			if err != nil {
				t.Error(err)
				break
			}
			if r.Seq == 1 {
				close(paused)
				<-goOn
			}
			if r.Seq == n+1 {
				last <- r.Seq
				break
			}
		}
	}()
	<-paused
	within(t, "writing beside a watcher that stands still", func() {
		var b Batch
		for i := range n {
			b.Put("k", value)
			if i%50 == 49 {
				if _, err := db.Apply(&b); err != nil {
					t.Error(err)
				}
				b.Reset()
			}
		}
	})
	close(goOn)
	within(t, "catching up", func() { require.EqualValues(t, n+1, <-last) })
}

func TestLazyStoreShowsWatchersOnlyWhatIsDurable(t *testing.T) {
	db := open(t, &Options{Sync: SyncEvery(time.Hour)})
	put(t, db, "k", "v")
	present(t, db, "k", "v")
	require.Zero(t, db.Durable())
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	for r, err := range db.Watch(ctx, 1) {
		require.ErrorIs(t, err, context.DeadlineExceeded, "record %d is not durable", r.Seq)
	}
	_, err := db.Sync(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, take(t, db.Watch(t.Context(), 1), 1)[0].Seq)
}

func TestWatchersUnderLoadAndCompaction(t *testing.T) {
	db := open(t, &Options{SegmentSize: 8 << 10, Sync: SyncEvery(time.Millisecond), Compaction: Compaction{Rate: 1 << 30}})
	const n = 3000
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range n {
			if err := db.Put(fmt.Sprint("k", i%50), fmt.Append(nil, i)); err != nil {
				t.Error(err)
			}
		}
	})
	for range 3 {
		wg.Go(func() {
			next := uint64(1)
			for next <= n {
				for r, err := range db.Watch(t.Context(), next) {
					var gone *CompactedError
					if errors.As(err, &gone) && gone.First > next {
						next = gone.First
						break
					}
					if err != nil || r.Seq != next {
						t.Errorf("record %d instead of %d, %v", r.Seq, next, err)
						return
					}
					if next++; next > n {
						break
					}
				}
			}
		})
	}
	within(t, "the watchers", wg.Wait)
}
