package annals

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func journal(t testing.TB, db *Store, name string, config any) *Journal {
	t.Helper()
	j, err := OpenJournal(db, name, config)
	require.NoError(t, err)
	return j
}

// recorded returns the keys of a journal in the order of recording, each with its
// result.
func recorded(t testing.TB, j *JournalReader) (list []string) {
	t.Helper()
	for r, err := range j.Results() {
		require.NoError(t, err)
		list = append(list, r.Key+"="+string(r.Value))
	}
	return list
}

func TestJournalGoesOnWithWhatIsMissing(t *testing.T) {
	clock := newFakeClock()
	opts := &Options{Now: clock.Now}
	db := open(t, opts)
	config := map[string]any{"count": 10, "cpu": "2"}
	keys := []string{"c", "a", "b", "a/b", "%2F", "k\xff"}
	j := journal(t, db, "nightly", config)
	begun := clock.Now()
	missing, err := j.Resume(keys)
	require.NoError(t, err)
	require.Equal(t, keys, missing)
	clock.move(time.Minute)
	require.NoError(t, j.Record("c", map[string]float64{"ns/op": 12.5}))
	require.NoError(t, j.Record("a/b", "<two>\nlines"))
	require.NoError(t, j.Record("k\xff", nil))

	db = openAt(t, killed(t, db), opts)
	j = journal(t, db, "nightly", struct { // the same, by another type and in another order
		CPU   string `json:"cpu"`
		Count int    `json:"count"`
	}{"2", 10})
	missing, err = j.Resume(keys)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b", "%2F"}, missing)
	for _, key := range missing {
		done, err := j.Done(key)
		require.NoError(t, err)
		require.False(t, done)
		require.NoError(t, j.Record(key, 1))
		done, err = j.Done(key)
		require.NoError(t, err)
		require.True(t, done)
	}
	missing, err = j.Resume(keys)
	require.NoError(t, err)
	require.Empty(t, missing)
	missing, err = j.Resume([]string{"new", "a"}) // the others count, too
	require.NoError(t, err)
	require.Equal(t, []string{"new"}, missing)
	require.Equal(t, []string{`c={"ns/op":12.5}`, `a/b="<two>\nlines"`, "k\xff=null", "a=1", "b=1", "%2F=1"}, recorded(t, &j.JournalReader))

	info, err := j.Info()
	require.NoError(t, err)
	require.Equal(t, 7, info.Expected)
	require.Equal(t, 6, info.Done)
	require.JSONEq(t, `{"count":10,"cpu":"2"}`, string(info.Config))
	require.WithinDuration(t, begun, info.Begun, time.Microsecond)
	require.WithinDuration(t, clock.Now(), info.Last, time.Second)

	result, err := j.Result("c")
	require.NoError(t, err)
	require.Equal(t, `{"ns/op":12.5}`, string(result.Value))
	require.WithinDuration(t, begun.Add(time.Minute), result.At, time.Second)
	_, err = j.Result("d")
	require.ErrorIs(t, err, ErrNotFound)
	require.EqualError(t, err, `annals: not found: journal "nightly" has no result of "d"`)
}

func TestJournalTakesAKeyOnce(t *testing.T) {
	db := open(t, nil)
	j := journal(t, db, "n", nil)
	require.NoError(t, j.Record("a", 1))
	err := j.Record("a", 2)
	require.ErrorIs(t, err, ErrRecorded)
	require.Regexp(t, `^annals: recorded already: journal "n" has a result of "a" since 20\S+Z, which stands$`, err.Error())
	require.Error(t, j.Record("", 1))
	require.ErrorContains(t, j.Record("b", func() {}), `journal "n": encoding the result of "b"`)
	require.ErrorIs(t, j.Record(strings.Repeat("k", maxKey), 1), ErrTooLarge)
	require.Equal(t, []string{"a=1"}, recorded(t, &j.JournalReader))
	_, err = j.Resume([]string{"x", "y", "x"})
	require.EqualError(t, err, `annals: journal "n": key "x" is given twice`)
}

// Many goroutines, each with a Journal of its own, want to record the same keys. The
// directory is copied again and again meanwhile, as a kill would leave it.
func TestJournalTakesAKeyOnceAlsoFromManyAndAcrossKills(t *testing.T) {
	for _, policy := range []SyncPolicy{SyncAlways, SyncEvery(time.Hour)} {
		t.Run(policy.String(), func(t *testing.T) {
			db := open(t, &Options{Sync: policy})
			var acknowledged sync.Map
			var wins [40]atomic.Int32
			journal(t, db, "n", "config")
			work := func(worker int) error {
				j, err := OpenJournal(db, "n", "config")
				for key := range wins {
					if err == nil {
						err = j.Record(fmt.Sprint(key), worker)
					}
					if err == nil {
						wins[key].Add(1)
						acknowledged.Store(fmt.Sprint(key), fmt.Sprint(worker))
					} else if errors.Is(err, ErrRecorded) {
						err = nil
					}
				}
				return err
			}
			errs := make(chan error)
			const workers = 8
			for worker := range workers {
				go func() { errs <- work(worker) }()
			}
			check := func() {
				before := map[any]any{}
				acknowledged.Range(func(key, worker any) bool { before[key] = worker; return true })
				copied := openDamaged(t, killed(t, db), nil)
				defer copied.Close()
				after := journal(t, copied, "n", "config")
				for key, worker := range before {
					r, err := after.Result(key.(string))
					require.NoError(t, err)
					require.Equal(t, worker, string(r.Value))
				}
			}
			for left := workers; left > 0; {
				select {
				case err := <-errs:
					require.NoError(t, err)
					left--
				default:
					check()
				}
			}
			check()
			for key := range wins {
				require.EqualValues(t, 1, wins[key].Load(), "key %d", key)
			}
		})
	}
}

func TestJournalOfAnotherConfigurationIsRefused(t *testing.T) {
	db := open(t, nil)
	j := journal(t, db, "n", map[string]any{"count": 10, "go": "1.26", "a": 1, "b": 1, "c": 1})
	before := db.Stats().LastSeq
	_, err := OpenJournal(db, "n", map[string]any{"count": 5, "go": "1.26", "a": 1, "b": 1, "c": 1})
	var conf *ConfigError
	require.ErrorAs(t, err, &conf)
	require.ErrorIs(t, err, ErrConfig)
	info, infoErr := j.Info()
	require.NoError(t, infoErr)
	require.Equal(t, info.Hash, conf.Have)
	require.Len(t, conf.Given, len("sha256:")+64)
	require.NotEqual(t, conf.Have, conf.Given)
	require.Equal(t, fmt.Sprintf(`annals: journal has another configuration: "n" was begun with %s, given is %s: `+
		`"count" was 10, now it is 5; take another name, or delete the journal`, conf.Have[:19], conf.Given[:19]), err.Error())

	_, err = OpenJournal(db, "n", map[string]any{"x": strings.Repeat("ä", 100)})
	require.ErrorContains(t, err, `"a" was 1, now it is missing, "b" was 1, now it is missing, "c" was 1, now it is missing, and 3 more`)
	_, err = OpenJournal(db, "n", nil)
	require.ErrorContains(t, err, `now it is null`)
	_, err = OpenJournal(db, "n", make(chan int))
	require.ErrorContains(t, err, `encoding the configuration of journal "n"`)
	require.Equal(t, before, db.Stats().LastSeq, "nothing was written")

	// Large integers are told apart, and fields of fields are in order.
	_, err = OpenJournal(db, "big", json.RawMessage(`{"x":{"b":1,"a":9007199254740993}}`))
	require.NoError(t, err)
	_, err = OpenJournal(db, "big", json.RawMessage(`{"x": {"a": 9007199254740993, "b": 1}}`))
	require.NoError(t, err)
	_, err = OpenJournal(db, "big", json.RawMessage(`{"x":{"b":1,"a":9007199254740992}}`))
	require.ErrorIs(t, err, ErrConfig)
}

func TestJournalNamesKeepApart(t *testing.T) {
	db := open(t, nil)
	names := []string{"a", "a/b", "a%2Fb", "a-b", "ä ö", "\x1b[31m", strings.Repeat("%", 255)}
	for i, name := range names {
		j := journal(t, db, name, i)
		require.NoError(t, j.Record("b/c", i))
		require.NoError(t, j.Record("c", name))
	}
	var found []string
	for info, err := range Journals(db) {
		require.NoError(t, err)
		require.Equal(t, 2, info.Done)
		found = append(found, info.Name)
	}
	require.Equal(t, names, found, "in the order in which they were begun")
	for i, name := range names {
		j, err := ReadJournal(db, name)
		require.NoError(t, err)
		require.Equal(t, name, j.Name())
		require.Equal(t, fmt.Sprintf("b/c=%d", i), recorded(t, j)[0])
	}
	for _, bad := range []string{"", "\xff", strings.Repeat("a", 256)} {
		_, err := OpenJournal(db, bad, nil)
		require.ErrorIs(t, err, ErrTooLarge)
	}
	_, err := ReadJournal(db, "b")
	require.EqualError(t, err, `annals: not found: no journal "b"`)
}

func TestDeletedJournalIsGoneWhole(t *testing.T) {
	db := open(t, nil)
	j, other := journal(t, db, "a", 1), journal(t, db, "a-b", 1)
	require.NoError(t, j.Record("x", 1))
	require.NoError(t, other.Record("x", 2))
	before := db.Stats().LastSeq
	require.NoError(t, DeleteJournal(db, "a"))
	require.Equal(t, before+2, db.Stats().LastSeq, "one commit of two deletes")
	require.ErrorIs(t, DeleteJournal(db, "a"), ErrNotFound)
	require.ErrorIs(t, j.Record("y", 1), ErrNotFound)
	_, err := j.Info()
	require.ErrorIs(t, err, ErrNotFound)
	_, err = j.Resume([]string{"y"})
	require.ErrorIs(t, err, ErrNotFound)
	require.Equal(t, []string{"x=2"}, recorded(t, &other.JournalReader))

	anew := journal(t, db, "a", 2)
	require.ErrorIs(t, j.Record("y", 1), ErrConfig, "what was opened is not what is there")
	require.Empty(t, recorded(t, &anew.JournalReader))
}

// A result and other writes are one commit.
func TestRecordInIsPartOfTheTransaction(t *testing.T) {
	db := open(t, nil)
	j := journal(t, db, "n", nil)
	record := func(fail error) error {
		return db.Update(func(tx *Tx) error {
			if _, err := tx.Append("latency", []byte("1")); err != nil {
				return err
			}
			if err := j.RecordIn(tx, "a", 1); err != nil {
				return err
			}
			return fail
		})
	}
	require.ErrorIs(t, record(os.ErrInvalid), os.ErrInvalid)
	require.Empty(t, recorded(t, &j.JournalReader))
	require.NoError(t, record(nil))
	require.ErrorIs(t, record(nil), ErrRecorded)
	require.Len(t, samples(t, db, "latency", Window{}), 1)
}

func TestJournalIsFollowedFromAReader(t *testing.T) {
	db := open(t, &Options{SegmentSize: 4 << 10})
	j := journal(t, db, "n", nil)
	keys := make([]string, 200)
	for i := range keys {
		keys[i] = fmt.Sprint("k", i)
	}
	_, err := j.Resume(keys)
	require.NoError(t, err)
	require.NoError(t, j.Record("k0", "0"))

	r, err := OpenReader(db.dir, nil)
	require.NoError(t, err)
	defer r.Close()
	live, err := ReadJournal(r, "n")
	require.NoError(t, err)
	info, err := live.Info()
	require.NoError(t, err)
	require.Equal(t, 1, info.Done)
	require.Equal(t, 200, info.Expected)

	failed := make(chan error, 1)
	go func() { // rotation and compaction go on meanwhile
		var err error
		for i := 1; i < len(keys) && err == nil; i++ {
			if err = db.Put("other", []byte(strings.Repeat("x", 500))); err == nil {
				err = j.Record(keys[i], fmt.Sprint(i))
			}
			if err == nil && i%40 == 0 {
				_, err = db.Compact(context.Background(), nil)
			}
		}
		failed <- err
	}()
	var got []string
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for result, err := range live.Watch(ctx) {
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("%q", result.Key[1:]), string(result.Value))
		if got = append(got, result.Key); len(got) == len(keys) {
			break
		}
	}
	require.NoError(t, <-failed)
	require.Equal(t, keys, got, "each once, in order")
	require.NoError(t, r.Refresh())
	info, err = live.Info()
	require.NoError(t, err)
	require.Equal(t, 200, info.Done)
}

func TestWatchOfAJournalEnds(t *testing.T) {
	for _, policy := range []SyncPolicy{SyncAlways, SyncEvery(time.Hour)} {
		db := open(t, &Options{Sync: policy})
		j := journal(t, db, "n", nil)
		require.NoError(t, db.Put("buffered", nil))
		require.NoError(t, j.Record("a", 1))
		var keys []string
		for result, err := range j.Watch(t.Context()) {
			if err != nil {
				require.EqualError(t, err, `annals: not found: no journal "n"`)
				break
			}
			if keys = append(keys, result.Key); len(keys) == 1 {
				require.NoError(t, DeleteJournal(db, "n"))
			}
		}
		require.Equal(t, []string{"a"}, keys)

		j = journal(t, db, "n", nil)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, err := range j.Watch(ctx) {
			require.ErrorIs(t, err, context.Canceled)
		}
	}
}

// What a power cut may take has not happened yet.
func TestWatchOfAJournalShowsWhatIsDurable(t *testing.T) {
	db := open(t, &Options{Sync: SyncEvery(time.Hour)})
	j := journal(t, db, "n", nil)
	require.NoError(t, db.Update(func(tx *Tx) error { return j.RecordIn(tx, "a", 1) }))
	done, err := j.Done("a")
	require.NoError(t, err)
	require.True(t, done, "this process sees it")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for _, err := range j.Watch(ctx) {
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
	_, err = db.Sync(t.Context())
	require.NoError(t, err)
	for result, err := range j.Watch(t.Context()) {
		require.NoError(t, err)
		require.Equal(t, "a", result.Key)
		break
	}
}

// History that nobody keeps is no matter for who watches a journal.
func TestWatchOfAJournalOutlivesCompaction(t *testing.T) {
	db := open(t, nil)
	j := journal(t, db, "n", nil)
	require.NoError(t, j.Record("a", 1))
	var keys []string
	for result, err := range j.Watch(t.Context()) {
		require.NoError(t, err)
		keys = append(keys, result.Key)
		if len(keys) == 1 { // before the watch over the log begins
			require.NoError(t, j.Record("b", 1))
			require.NoError(t, j.Record("c", 1))
			for range 100 {
				require.NoError(t, db.Put("other", []byte("1")))
			}
			compactAll(t, db)
		}
		if len(keys) == 3 {
			break
		}
	}
	require.Equal(t, []string{"a", "b", "c"}, slices.Sorted(slices.Values(keys)))
}

// Other people's keys below journal/ are told from journals, and hide none.
func TestForeignKeysAreNoJournals(t *testing.T) {
	db := open(t, nil)
	put(t, db, "journal/text", "hello")
	put(t, db, "journal/later", `{"journal":2}`)
	j := journal(t, db, "n", nil)
	require.NoError(t, j.Record("a", 1))
	put(t, db, "journal/n/b", `{"something":"else"}`)

	_, err := OpenJournal(db, "text", nil)
	require.EqualError(t, err, `annals: key "journal/text" holds no journal: "hello"`)
	_, err = OpenJournal(db, "later", nil)
	require.ErrorIs(t, err, ErrNewerFormat)
	_, err = j.Result("b")
	require.ErrorContains(t, err, `the value of "b" is no result of a journal`)
	failed := map[string]int{}
	for info, err := range Journals(db) {
		require.Error(t, err) // of n that of its newest result
		failed[info.Name] = info.Done
	}
	require.Equal(t, map[string]int{"text": 0, "later": 0, "n": 2}, failed)
	var good []string
	for r, err := range j.Results() {
		if err == nil {
			good = append(good, r.Key)
		} else {
			require.Equal(t, "b", r.Key)
		}
	}
	require.Equal(t, []string{"a"}, good)
}

// A full disk records nothing, and once there is room the same key can be recorded.
// A failed sync leaves the outcome open, and the next Open decides it: what is done
// stays done, all else can be recorded.
func TestJournalAfterAFailedWrite(t *testing.T) {
	hooks := newHookFS()
	dir := t.TempDir() + "/store"
	db := openDamaged(t, dir, &Options{FS: hooks})
	j := journal(t, db, "n", nil)
	set(&hooks.onWrite, func(string) error { return syscall.ENOSPC })
	require.ErrorIs(t, j.Record("a", 1), syscall.ENOSPC)
	done, err := j.Done("a")
	require.NoError(t, err)
	require.False(t, done)
	set(&hooks.onWrite, nil)
	require.NoError(t, j.Record("a", 2))

	set(&hooks.onSync, func(string) error { return syscall.EIO })
	err = j.Record("b", 1)
	var failed *FailedError
	require.ErrorAs(t, err, &failed)
	require.True(t, failed.Unknown)
	set(&hooks.onSync, nil)
	require.ErrorIs(t, j.Record("c", 1), ErrFailed)
	require.ErrorIs(t, db.Close(), ErrFailed)

	db = openAt(t, dir, nil)
	j = journal(t, db, "n", nil)
	missing, err := j.Resume([]string{"a", "b", "c"})
	require.NoError(t, err)
	require.Contains(t, missing, "c")
	require.NotContains(t, missing, "a")
	for _, key := range missing {
		require.NoError(t, j.Record(key, 3))
	}
	require.Len(t, recorded(t, &j.JournalReader), 3)
	require.Equal(t, "a=2", recorded(t, &j.JournalReader)[0])
}
