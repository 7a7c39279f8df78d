package annals

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals/fuzz/seed"
)

// counter reads a number that is 0 if the key is absent.
func counter(g Getter, key string) (int, error) {
	v, err := g.Get(key)
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(v))
}

// A writer uses its memory again as soon as its record is visible. Until then
// transactions read from that memory, and never a moment longer.
func TestTransactionReadsQueuedRecordsWhileTheyAreQueued(t *testing.T) {
	db := open(t, nil)
	put(t, db, "k", "0")
	var over atomic.Bool
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; !over.Load(); i++ {
				v := strings.Repeat(string(rune('a'+w)), 10+i%30)
				if err := db.Put("k", []byte(v)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	check := func(v []byte, err error) error {
		if err == nil && string(v) != "0" && (len(v) < 10 || strings.Trim(string(v), string(v[:1])) != "") {
			err = fmt.Errorf("nobody has written %q", v)
		}
		return err
	}
	for range 300 {
		require.NoError(t, db.Update(func(tx *Tx) error {
			if err := check(tx.Get("k")); err != nil {
				return err
			}
			for e, err := range tx.Scan(Range{}) {
				if err := check(e.Value, err); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	over.Store(true)
	wg.Wait()
}

func TestConcurrentIncrementsAreNotLost(t *testing.T) {
	for _, policy := range []SyncPolicy{SyncAlways, SyncEvery(5 * time.Millisecond), SyncNever} {
		t.Run(policy.String(), func(t *testing.T) {
			db := open(t, &Options{Sync: policy, SegmentSize: 64 << 10})
			const goroutines, each, counters = 64, 20, 8
			var runs atomic.Int64
			var wg sync.WaitGroup
			for g := range goroutines {
				wg.Go(func() {
					for i := range each {
						err := db.Update(func(tx *Tx) error {
							runs.Add(1)
							key := fmt.Sprint("counter", (g+i)%counters)
							n, err := counter(tx, key)
							if err != nil {
								return err
							}
							return tx.Put(key, []byte(strconv.Itoa(n+1)))
						})
						if err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			require.EqualValues(t, goroutines*each, runs.Load(), "each function ran once")
			sum := 0
			for i := range counters {
				n, err := counter(db, fmt.Sprint("counter", i))
				require.NoError(t, err)
				sum += n
			}
			require.Equal(t, goroutines*each, sum)
			if policy == SyncAlways {
				require.Greater(t, db.Stats().RecordsPerSync, 4.0, "transactions share syncs")
			}
		})
	}
}

// Two doctors are on call; each may leave only if the other one stays.
func TestWriteSkewIsImpossible(t *testing.T) {
	db := open(t, nil)
	for range 50 {
		put(t, db, "ann", "on call")
		put(t, db, "ben", "on call")
		var wg sync.WaitGroup
		for _, me := range []string{"ann", "ben"} {
			wg.Go(func() {
				err := db.Update(func(tx *Tx) error {
					n := 0
					for _, err := range tx.Scan(Range{}) {
						if err != nil {
							return err
						}
						n++
					}
					if n < 2 {
						return nil
					}
					return tx.Delete(me)
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.Len(t, scan(t, db, Range{}), 1)
	}
}

func TestTxSeesWhatIsQueuedAndReturnsOnceThatIsDurable(t *testing.T) {
	for name, fn := range map[string]func(tx *Tx) error{
		"writes":    func(tx *Tx) error { return tx.Put("mine", nil) },
		"only read": func(tx *Tx) error { return nil },
		"fails":     func(tx *Tx) error { return errors.New("no") },
	} {
		t.Run(name, func(t *testing.T) {
			hooks := newHookFS()
			db := open(t, &Options{FS: hooks})
			put(t, db, "old", "1")
			waiting, release := hooks.holdSyncs(t)
			var b Batch
			b.Put("queued", []byte("2"))
			b.Delete("old")
			b.Append("s", []byte("3"))
			queued := db.Submit(&b)
			<-waiting
			ran, returned := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(returned)
				_ = db.Update(func(tx *Tx) error {
					defer close(ran)
					present(t, tx, "queued", "2")
					absent(t, tx, "old")
					require.Equal(t, []string{"queued=2"}, scan(t, tx, Range{}))
					require.Len(t, samples(t, tx, "s", Window{}), 1)
					require.EqualValues(t, 1, series(t, tx)[0].Samples)
					return fn(tx)
				})
			}()
			<-ran
			absent(t, db, "queued")
			select {
			case <-returned:
				require.Fail(t, "Update returned before what it saw was durable")
			case <-time.After(20 * time.Millisecond):
			}
			release()
			<-returned
			_, err := queued.Wait(t.Context())
			require.NoError(t, err)
		})
	}
}

func TestTxSeesItsOwnWrites(t *testing.T) {
	clock := newFakeClock()
	db := open(t, &Options{Now: clock.Now})
	put(t, db, "a", "1")
	put(t, db, "b", "2")
	_, err := db.Append("s", []byte("first"))
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *Tx) error {
		require.NoError(t, tx.Put("c", []byte("3")))
		require.NoError(t, tx.Delete("a"))
		require.NoError(t, tx.Put("b", []byte("4"), IfSeq(2)))
		require.NoError(t, tx.Put("expired", []byte("5"), TTL(-time.Second)))
		require.NoError(t, tx.Put("expires", []byte("6"), TTL(time.Hour)))
		seq, err := tx.Append("s", []byte("second"))
		require.NoError(t, err)
		require.EqualValues(t, 9, seq)
		_, err = tx.Append("t", []byte("third"), At(time.UnixMicro(-5)))
		require.NoError(t, err)

		absent(t, tx, "a")
		absent(t, tx, "expired")
		present(t, tx, "b", "4")
		e, err := tx.Lookup("c")
		require.NoError(t, err)
		require.EqualValues(t, 4, e.Seq)
		e, err = tx.Lookup("expires")
		require.NoError(t, err)
		require.True(t, e.Expires.Equal(clock.Now().Add(time.Hour)), "%v", e.Expires)
		require.Equal(t, []string{"b=4", "c=3", "expires=6"}, scan(t, tx, Range{}))
		require.Equal(t, []string{"expires=6", "c=3"}, scan(t, tx, Range{Reverse: true, Limit: 2}))
		require.ErrorIs(t, tx.Put("b", nil, IfSeq(2)), ErrConflict, "its own write has another number")
		require.NoError(t, tx.Put("b", []byte("7"), IfSeq(6)))
		require.ErrorIs(t, tx.Put("b", nil, IfAbsent()), ErrConflict)
		require.NoError(t, tx.Put("a", []byte("8"), IfAbsent()), "it has deleted that one")
		require.NoError(t, tx.Put("expired", []byte("9"), IfAbsent()))
		require.NoError(t, tx.Delete("expired"))

		list := samples(t, tx, "s", Window{})
		require.Len(t, list, 2)
		require.Equal(t, "second", string(list[1].Value))
		require.Equal(t, "second", string(samples(t, tx, "s", Window{Reverse: true, Limit: 1})[0].Value))
		require.EqualValues(t, -5, samples(t, tx, "t", Window{})[0].At.UnixMicro())
		all := series(t, tx)
		require.Len(t, all, 2)
		require.EqualValues(t, 2, all[0].Samples)
		require.EqualValues(t, 9, all[0].LastSeq)

		absent(t, db, "c") // the others do not see it yet
		return nil
	}))
	require.Equal(t, []string{"a=8", "b=7", "c=3", "expires=6"}, scan(t, db, Range{}))
	e, err := db.Lookup("c")
	require.NoError(t, err)
	require.EqualValues(t, 4, e.Seq, "the number that the transaction saw")
	require.Len(t, samples(t, db, "s", Window{}), 2)
}

// Scan merges three layers: what is visible, what is queued and what is its own.
func TestTxScanIsExactOverAllLayers(t *testing.T) {
	rng := seed.Rand(t)
	for range 5 {
		hooks := newHookFS()
		db := open(t, &Options{FS: hooks})
		want := model{}
		change := func(n int, put func(string, []byte, ...PutOption), del func(string, ...PutOption)) {
			for i := range n {
				key := randomKey(rng)
				if rng.IntN(3) == 0 {
					del(key)
					delete(want, key)
				} else {
					want[key] = fmt.Sprint(n, " ", i)
					put(key, []byte(want[key]))
				}
			}
		}
		var b Batch
		change(60, b.Put, b.Delete)
		_, err := db.Apply(&b)
		require.NoError(t, err)
		visible := maps.Clone(want)
		waiting, release := hooks.holdSyncs(t)
		for range 3 {
			b.Reset()
			change(20, b.Put, b.Delete)
			db.Submit(&b)
		}
		<-waiting
		go func() {
			time.Sleep(5 * time.Millisecond) // only to have what is queued become visible in the middle of the scans
			release()
		}()
		require.NoError(t, db.Update(func(tx *Tx) error {
			change(30, func(k string, v []byte, _ ...PutOption) { require.NoError(t, tx.Put(k, v)) },
				func(k string, _ ...PutOption) { require.NoError(t, tx.Delete(k)) })
			want.holds(t, tx)
			for range 300 {
				r := randomRange(rng)
				require.Equal(t, want.scan(r), scan(t, tx, r), "%+v", r)
			}
			for key := range visible {
				_, err := tx.Get(key)
				_, alive := want[key]
				require.Equal(t, alive, err == nil)
			}
			return nil
		}))
		want.holds(t, db)
	}
}

func TestFailedFunctionWritesNothing(t *testing.T) {
	db := open(t, nil)
	put(t, db, "k", "1")
	no := errors.New("no")
	require.Equal(t, no, db.Update(func(tx *Tx) error {
		require.NoError(t, tx.Put("k", []byte("2")))
		_, err := tx.Append("s", nil)
		require.NoError(t, err)
		return no
	}))
	require.Equal(t, []string{"k=1"}, scan(t, db, Range{}))
	require.Empty(t, series(t, db))
	require.EqualValues(t, 1, db.Stats().LastSeq)
	put(t, db, "k", "3")
	require.EqualValues(t, 2, db.Stats().LastSeq)
}

func TestPanicInAFunctionLetsTheStoreGoOn(t *testing.T) {
	db := open(t, nil)
	require.PanicsWithValue(t, "oh", func() {
		_ = db.Update(func(tx *Tx) error {
			require.NoError(t, tx.Put("k", []byte("1")))
			panic("oh")
		})
	})
	within(t, "a write after a panic", func() { put(t, db, "k", "2") })
	present(t, db, "k", "2")
	require.EqualValues(t, 1, db.Stats().LastSeq)
}

func TestTxGoesOnAfterAConflict(t *testing.T) {
	db := open(t, nil)
	put(t, db, "k", "1")
	require.NoError(t, db.Update(func(tx *Tx) error {
		require.ErrorIs(t, tx.Put("k", []byte("2"), IfAbsent()), ErrConflict)
		present(t, tx, "k", "1")
		return tx.Put("l", []byte("3"))
	}))
	require.Equal(t, []string{"k=1", "l=3"}, scan(t, db, Range{}))
}

func TestTxThatIsOverIsRefused(t *testing.T) {
	db := open(t, nil)
	var tx *Tx
	require.NoError(t, db.Update(func(own *Tx) error {
		tx = own
		return tx.Put("k", []byte("1"))
	}))
	_, getErr := tx.Get("k")
	_, lookupErr := tx.Lookup("k")
	_, appendErr := tx.Append("s", nil)
	for name, err := range map[string]error{
		"Put":     tx.Put("k", nil),
		"Delete":  tx.Delete("k"),
		"Append":  appendErr,
		"Get":     getErr,
		"Lookup":  lookupErr,
		"Scan":    firstError(tx.Scan(Range{})),
		"Samples": firstError(tx.Samples("s", Window{})),
		"Series":  firstError(tx.Series()),
	} {
		t.Run(name, func(t *testing.T) { require.ErrorIs(t, err, ErrClosed) })
	}
	present(t, db, "k", "1")
}

func TestTransactionIsOneCommit(t *testing.T) {
	db := open(t, nil)
	require.NoError(t, db.Update(func(tx *Tx) error {
		require.NoError(t, tx.Put("a", []byte("1")))
		_, err := tx.Append("s", []byte("2"))
		require.NoError(t, err)
		return tx.Delete("b")
	}))
	var more []bool
	for r, err := range db.Watch(t.Context(), 1) {
		require.NoError(t, err)
		if more = append(more, r.More); len(more) == 3 {
			break
		}
	}
	require.Equal(t, []bool{true, true, false}, more)
}
