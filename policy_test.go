package annals

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// lazyPolicies return before a record is durable.
var lazyPolicies = []SyncPolicy{SyncEvery(time.Hour), SyncNever}

func TestLazyWriteIsVisibleAtOnceAndDurableAfterSync(t *testing.T) {
	for _, policy := range lazyPolicies {
		t.Run(policy.String(), func(t *testing.T) {
			db := open(t, &Options{Sync: policy})
			put(t, db, "k", "1")
			present(t, db, "k", "1")
			seq, err := db.Append("s", []byte("2"))
			require.NoError(t, err)
			require.EqualValues(t, 2, seq)
			require.Len(t, samples(t, db, "s", Window{}), 1)
			require.Zero(t, db.Durable())
			seq, err = db.Sync(t.Context())
			require.NoError(t, err)
			require.EqualValues(t, 2, seq)
			require.EqualValues(t, 2, db.Durable())
			db = openAt(t, killed(t, db), nil)
			present(t, db, "k", "1")
		})
	}
}

func TestSyncEveryMakesDurableWithinItsTime(t *testing.T) {
	db := open(t, &Options{Sync: SyncEvery(10 * time.Millisecond)})
	for i := range 5 {
		put(t, db, "k", fmt.Sprint(i))
		eventually(t, "Durable moves by itself", func() bool { return db.Durable() == uint64(i+1) })
	}
}

// busy writes without a pause to a store whose disk takes a millisecond for each
// write, so that there is always something in the log's buffer.
func busy(t *testing.T, policy SyncPolicy) *Store {
	hooks := newHookFS()
	db := open(t, &Options{FS: hooks, Sync: policy, SegmentSize: maxSegment, Compaction: Compaction{Off: true}})
	set(&hooks.onWrite, func(string) error {
		time.Sleep(time.Millisecond)
		return nil
	})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if err := db.Put(fmt.Sprint("k", g), make([]byte, 100)); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	t.Cleanup(func() {
		close(stop)
		wg.Wait()
	})
	eventually(t, "writes", func() bool { return db.Stats().LastSeq > 100 })
	return db
}

// Writers that never pause must not keep the sync away.
func TestSyncEveryHoldsItsTimeUnderLoad(t *testing.T) {
	db := busy(t, SyncEvery(20*time.Millisecond))
	for range 4 {
		target := db.Stats().LastSeq
		begun := time.Now()
		for db.Durable() < target && time.Since(begun) < 2*time.Second {
			time.Sleep(time.Millisecond)
		}
		require.Less(t, time.Since(begun), time.Second, "20 ms were promised")
	}
}

func TestSyncReturnsUnderLoad(t *testing.T) {
	for _, policy := range []SyncPolicy{SyncAlways, SyncEvery(time.Hour), SyncNever} {
		t.Run(policy.String(), func(t *testing.T) {
			db := busy(t, policy)
			for range 3 {
				last := db.Stats().LastSeq
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				seq, err := db.Sync(ctx)
				cancel()
				require.NoError(t, err)
				require.GreaterOrEqual(t, seq, last)
			}
		})
	}
}

func TestCompactReturnsUnderLoad(t *testing.T) {
	for _, policy := range []SyncPolicy{SyncAlways, SyncEvery(time.Hour), SyncNever} {
		t.Run(policy.String(), func(t *testing.T) {
			db := busy(t, policy)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, err := db.Compact(ctx, nil)
			require.NoError(t, err)
		})
	}
}

func TestSyncNeverSyncsOnlyWhenAsked(t *testing.T) {
	db := open(t, &Options{Sync: SyncNever})
	for i := range 100 {
		put(t, db, fmt.Sprint("k", i), "v")
	}
	require.Len(t, take(t, db.Watch(t.Context(), 1), 100), 100, "others see what is written")
	require.Zero(t, db.Durable())
}

func TestSyncObeysItsContext(t *testing.T) {
	hooks := newHookFS()
	db := open(t, &Options{FS: hooks, Sync: SyncNever})
	put(t, db, "k", "v")
	waiting, release := hooks.holdSyncs(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-waiting
		cancel()
	}()
	within(t, "Sync", func() {
		_, err := db.Sync(ctx)
		require.ErrorIs(t, err, context.Canceled)
	})
	release()
	_, err := db.Sync(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, db.Durable())
}

func TestCloseMakesEverythingDurable(t *testing.T) {
	for _, policy := range lazyPolicies {
		for _, size := range []int64{minSegment, 16 << 20} {
			t.Run(fmt.Sprint(policy, size), func(t *testing.T) {
				db := open(t, &Options{Sync: policy, SegmentSize: size})
				want := model{}
				for i := range 500 {
					key := fmt.Sprint("k", i)
					want[key] = fmt.Sprint(i)
					put(t, db, key, want[key])
				}
				db = reopen(t, db, nil)
				require.True(t, db.Recovery().Clean)
				want.holds(t, db)
			})
		}
	}
}

// What is read here lies in the buffer, in several segments at once, since no write
// gets through to the file.
func TestBufferedLinesCanBeRead(t *testing.T) {
	for _, policy := range lazyPolicies {
		t.Run(policy.String(), func(t *testing.T) {
			hooks := newHookFS()
			db := open(t, &Options{FS: hooks, Sync: policy, SegmentSize: minSegment, Compaction: Compaction{Off: true}})
			gate, held := make(chan struct{}), make(chan struct{})
			var once sync.Once
			put(t, db, "first", "0")
			_, err := db.Sync(t.Context())
			require.NoError(t, err)
			set(&hooks.onWrite, func(string) error {
				once.Do(func() { close(held) })
				<-gate
				return nil
			})
			want := model{"first": "0"}
			check := func() {
				want.holds(t, db)
				for key, value := range want {
					present(t, db, key, value)
				}
				require.Len(t, samples(t, db, "s", Window{}), len(want)-1)
			}
			for i := range 200 {
				key := fmt.Sprintf("k%03d", i)
				want[key] = fmt.Sprintf("value %d %s", i, bytes.Repeat([]byte("x"), 100))
				var b Batch
				b.Put(key, []byte(want[key]))
				b.Append("s", []byte(want[key]))
				_, err := db.Apply(&b)
				require.NoError(t, err)
			}
			<-held
			check()
			set(&hooks.onWrite, nil)
			close(gate)
			check()
			_, err = db.Sync(t.Context())
			require.NoError(t, err)
			check()
			require.Greater(t, len(db.Stats().Segments), 5)
			db = openAt(t, killed(t, db), nil)
			check()
		})
	}
}

func TestRecordLargerThanBufferAndSegment(t *testing.T) {
	for _, policy := range []SyncPolicy{SyncAlways, SyncEvery(time.Millisecond), SyncNever} {
		t.Run(policy.String(), func(t *testing.T) {
			opts := &Options{Sync: policy, SegmentSize: minSegment}
			db := open(t, opts)
			big := make([]byte, 12<<20)
			source := rand.NewChaCha8([32]byte{})
			source.Read(big)
			put(t, db, "before", "1")
			require.NoError(t, db.Put("big", big))
			put(t, db, "after", "2")
			check := func() {
				v, err := db.Get("big")
				require.NoError(t, err)
				require.True(t, bytes.Equal(big, v))
				present(t, db, "before", "1")
				present(t, db, "after", "2")
			}
			check()
			_, err := db.Sync(t.Context())
			require.NoError(t, err)
			check()
			db = openAt(t, killed(t, db), opts)
			check()
		})
	}
}

func TestWritersShareSyncs(t *testing.T) {
	db := open(t, nil)
	const goroutines, each = 64, 30
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := range each {
				if err := db.Put(fmt.Sprintf("k%d.%d", g, i), []byte("v")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	st := db.Stats()
	require.EqualValues(t, goroutines*each, st.Records)
	require.Greater(t, st.RecordsPerSync, 16.0)
}

func TestLoneWriterDoesNotWaitForCompany(t *testing.T) {
	db := open(t, nil)
	for range 50 {
		put(t, db, "k", "v")
	}
	st := db.Stats()
	require.EqualValues(t, 50, st.Batches)
	require.LessOrEqual(t, st.Syncs, uint64(52), "one sync a write, and those of the new segment")
}
