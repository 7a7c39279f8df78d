package annals

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBatchTakesContiguousNumbers(t *testing.T) {
	db := open(t, nil)
	put(t, db, "first", "1")
	var b Batch
	b.Put("a", []byte("1"))
	b.Append("s", []byte("2"))
	b.Delete("first")
	b.Put("b", []byte("3"))
	require.Equal(t, 4, b.Len())
	last, err := db.Apply(&b)
	require.NoError(t, err)
	require.EqualValues(t, 5, last)
	a, err := db.Lookup("a")
	require.NoError(t, err)
	require.EqualValues(t, 2, a.Seq)
	require.EqualValues(t, 3, samples(t, db, "s", Window{})[0].Seq)
	require.Equal(t, []string{"a=1", "b=3"}, scan(t, db, Range{}))
}

func TestLastWriteOfABatchWins(t *testing.T) {
	db := open(t, nil)
	var b Batch
	b.Put("twice", []byte("1"))
	b.Put("twice", []byte("2"))
	b.Put("gone", []byte("1"))
	b.Delete("gone")
	b.Delete("back")
	b.Put("back", []byte("3"))
	_, err := db.Apply(&b)
	require.NoError(t, err)
	check := func() {
		require.Equal(t, []string{"back=3", "twice=2"}, scan(t, db, Range{}))
		present(t, db, "twice", "2")
		absent(t, db, "gone")
	}
	check()
	db = reopen(t, db, nil)
	check()
	_, err = db.Compact(t.Context(), nil)
	require.NoError(t, err)
	check()
}

func TestBatchCopiesWhatItIsGiven(t *testing.T) {
	hooks := newHookFS()
	db := open(t, &Options{FS: hooks})
	waiting, release := hooks.holdSyncs(t)
	key, value := []byte("key"), []byte("value")
	var b Batch
	b.Put(string(key), value)
	b.Put("expiring", value, TTL(time.Hour))
	b.Append("s", value)
	copy(value, "xxxxx")
	c := db.Submit(&b)
	b.Reset()
	b.Put("other", []byte("other"))
	b.Put("another", []byte("another"))
	b.Put("third", []byte("third"))
	<-waiting
	release()
	_, err := c.Wait(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"expiring=value", "key=value"}, scan(t, db, Range{}))
	require.Equal(t, "value", string(samples(t, db, "s", Window{})[0].Value))
}

// What is still queued when its batch is used again is written as it was, whether
// the batch is the caller's or one that Put uses again.
func TestBatchMayBeUsedAgainAtOnce(t *testing.T) {
	hooks := newHookFS()
	db := open(t, &Options{FS: hooks})
	put(t, db, "warm", "up") // leaves a batch to Put
	waiting, release := hooks.holdSyncs(t)
	var first, b Batch
	first.Put("first", []byte("first"))
	db.Submit(&first)
	<-waiting
	b.Put("key", []byte("value"))
	b.Put("expiring", []byte("value"), TTL(time.Hour))
	c := db.Submit(&b)
	again := db.Submit(&b)
	b.Reset()
	b.Put("new", []byte("other")) // fits into the same memory
	other := db.Submit(&b)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := db.Put(fmt.Sprint("put", i), fmt.Append(nil, i)); err != nil {
				t.Error(err)
			}
		})
	}
	release()
	for i, c := range []*Commit{c, again, other} {
		seq, err := c.Wait(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, []int{4, 6, 7}[i], seq)
	}
	wg.Wait()
	require.Equal(t, []string{
		"expiring=value", "first=first", "key=value", "new=other",
		"put0=0", "put1=1", "put2=2", "put3=3", "put4=4", "put5=5", "put6=6", "put7=7", "warm=up",
	}, scan(t, db, Range{}))
}

// A put leaves nothing to the collector but what the index keeps.
func TestPutAllocatesLittle(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector empties pools")
	}
	for _, policy := range []SyncPolicy{SyncAlways, SyncEvery(time.Second)} {
		db := open(t, &Options{Sync: policy})
		value := []byte(`{"name":"Ann","age":41}`)
		allocs := testing.AllocsPerRun(200, func() {
			if err := db.Put("key", value); err != nil {
				t.Fatal(err)
			}
		})
		require.LessOrEqual(t, allocs, 1.0, "Put, %v", policy)
		allocs = testing.AllocsPerRun(200, func() {
			if _, err := db.Append("series", value); err != nil {
				t.Fatal(err)
			}
		})
		require.LessOrEqual(t, allocs, 1.0, "Append, %v", policy)
	}
}

func TestBatchMayBeAppliedAgain(t *testing.T) {
	clock := newFakeClock()
	db := open(t, &Options{Now: clock.Now})
	var b Batch
	b.Append("s", []byte("1"))
	b.Put("k", []byte("v"), TTL(time.Minute))
	_, err := db.Apply(&b)
	require.NoError(t, err)
	clock.move(time.Hour)
	absent(t, db, "k")
	_, err = db.Apply(&b)
	require.NoError(t, err)
	present(t, db, "k", "v") // its minute is counted from the second write
	require.Len(t, samples(t, db, "s", Window{}), 2)
}

func TestEmptyBatchChangesNothing(t *testing.T) {
	db := open(t, nil)
	before := tree(t, db.dir)
	seq, err := db.Apply(&Batch{})
	require.NoError(t, err)
	require.Zero(t, seq)
	seq, err = db.Submit(&Batch{}).Wait(t.Context())
	require.NoError(t, err)
	require.Zero(t, seq)
	require.NoError(t, db.Update(func(*Tx) error { return nil }))
	sameTree(t, before, tree(t, db.dir))
}

func TestSubmittedBatchesKeepTheirOrder(t *testing.T) {
	for _, policy := range []SyncPolicy{SyncAlways, SyncEvery(time.Millisecond), SyncNever} {
		t.Run(policy.String(), func(t *testing.T) {
			db := open(t, &Options{Sync: policy, SegmentSize: minSegment})
			const n = 1000
			var commits []*Commit
			var b Batch
			for i := range n {
				b.Reset()
				b.Put("latest", fmt.Append(nil, i))
				b.Append("s", fmt.Append(nil, i))
				commits = append(commits, db.Submit(&b))
			}
			for i, c := range commits {
				seq, err := c.Wait(t.Context())
				require.NoError(t, err)
				require.EqualValues(t, 2*(i+1), seq)
			}
			present(t, db, "latest", fmt.Sprint(n-1))
			for i, s := range samples(t, db, "s", Window{}) {
				require.Equal(t, fmt.Sprint(i), string(s.Value))
			}
		})
	}
}

func TestEndOfWaitIsNotTheEndOfTheCommit(t *testing.T) {
	hooks := newHookFS()
	db := open(t, &Options{FS: hooks})
	waiting, release := hooks.holdSyncs(t)
	var b Batch
	b.Put("k", []byte("v"))
	c := db.Submit(&b)
	<-waiting
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Wait(ctx)
	require.ErrorIs(t, err, context.Canceled)
	absent(t, db, "k") // not durable, so not visible
	release()
	seq, err := c.Wait(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, seq)
	present(t, db, "k", "v")
	seq, err = c.Wait(ctx)
	require.NoError(t, err, "a known outcome comes before the end of ctx")
	require.EqualValues(t, 1, seq)
}

func TestWriteIsVisibleOnlyOnceDurable(t *testing.T) {
	hooks := newHookFS()
	db := open(t, &Options{FS: hooks})
	put(t, db, "before", "1")
	waiting, release := hooks.holdSyncs(t)
	var b Batch
	b.Put("k", []byte("v"))
	b.Append("s", []byte("v"))
	c := db.Submit(&b)
	<-waiting
	absent(t, db, "k")
	require.Equal(t, []string{"before=1"}, scan(t, db, Range{}))
	require.Empty(t, samples(t, db, "s", Window{}))
	require.EqualValues(t, 1, db.Durable())
	release()
	_, err := c.Wait(t.Context())
	require.NoError(t, err)
	present(t, db, "k", "v")
	require.EqualValues(t, 3, db.Durable())
}

func TestConditionsHoldOrNothingIsWritten(t *testing.T) {
	clock := newFakeClock()
	db := open(t, &Options{Now: clock.Now})
	put(t, db, "present", "1")           // 1
	put(t, db, "expired", "2", TTL(1))   // 2
	put(t, db, "deleted", "3")           // 3
	del(t, db, "deleted")                // 4
	put(t, db, "alive", "5", TTL(1<<40)) // 5
	put(t, db, "overwritten", "6")       // 6
	put(t, db, "overwritten", "7")       // 7
	clock.move(time.Second)
	for key, seq := range map[string]uint64{"present": 1, "expired": 0, "deleted": 0, "alive": 5, "overwritten": 7, "absent": 0} {
		for _, condition := range []uint64{0, 1, 2, 3, 4, 5, 6, 7, 8, 1 << 60} {
			t.Run(fmt.Sprintf("%s if %d", key, condition), func(t *testing.T) {
				before := db.Stats().LastSeq
				var b Batch
				b.Append("log", []byte("not to be seen"))
				b.Put(key, []byte("new"), IfSeq(condition))
				b.Delete("other")
				if condition != seq {
					_, err := db.Apply(&b)
					require.ErrorIs(t, err, ErrConflict)
					_, err = db.Submit(&b).Wait(t.Context())
					require.ErrorIs(t, err, ErrConflict)
					require.ErrorIs(t, db.Put(key, nil, IfSeq(condition)), ErrConflict)
					require.ErrorIs(t, db.Delete(key, IfSeq(condition)), ErrConflict)
					require.Equal(t, before, db.Stats().LastSeq)
					require.Empty(t, samples(t, db, "log", Window{}))
					return
				}
				require.NoError(t, db.Update(func(tx *Tx) error {
					require.NoError(t, tx.Delete(key, IfSeq(condition)))
					return tx.Put("done "+key, nil, IfAbsent())
				}))
				absent(t, db, key)
			})
			if condition == seq && seq != 0 {
				break // it is deleted now
			}
		}
	}
	require.NoError(t, db.Put("fresh", []byte("1"), IfAbsent()))
	require.ErrorIs(t, db.Put("fresh", []byte("2"), IfAbsent()), ErrConflict)
	present(t, db, "fresh", "1")
}

func TestConditionSeesWhatIsQueued(t *testing.T) {
	hooks := newHookFS()
	db := open(t, &Options{FS: hooks})
	waiting, release := hooks.holdSyncs(t)
	submit := func(add func(*Batch)) *Commit {
		var b Batch
		add(&b)
		return db.Submit(&b)
	}
	one := submit(func(b *Batch) { b.Put("k", []byte("1"), IfAbsent()) })
	<-waiting
	two := submit(func(b *Batch) { b.Put("k", []byte("2"), IfAbsent()) })
	three := submit(func(b *Batch) { b.Put("k", []byte("3"), IfSeq(1)) })
	four := submit(func(b *Batch) { b.Delete("k", IfSeq(1)) })
	five := submit(func(b *Batch) { b.Delete("k", IfSeq(2)) })
	six := submit(func(b *Batch) { b.Put("k", []byte("6"), IfAbsent()) })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := two.Wait(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded, "a conflict is told only once what it saw is durable")
	release()
	for c, want := range map[*Commit]error{one: nil, two: ErrConflict, three: nil, four: ErrConflict, five: nil, six: nil} {
		_, err := c.Wait(t.Context())
		require.ErrorIs(t, err, want)
	}
	present(t, db, "k", "6")
}

func TestKeyWithConditionTwiceInABatchConflicts(t *testing.T) {
	db := open(t, nil)
	var b Batch
	b.Put("k", []byte("1"))
	b.Put("k", []byte("2"), IfSeq(1))
	_, err := db.Apply(&b)
	require.ErrorIs(t, err, ErrConflict)
	absent(t, db, "k")
}

// A key and a series of one name have nothing to do with each other.
func TestSampleDoesNotCountForAKeysCondition(t *testing.T) {
	db := open(t, nil)
	var b Batch
	b.Append("name", []byte("1"))
	b.Put("name", []byte("2"), IfAbsent())
	_, err := db.Apply(&b)
	require.NoError(t, err)
	present(t, db, "name", "2")
}
