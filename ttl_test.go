package annals

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const year = 365 * 24 * time.Hour

func compactAll(t testing.TB, db *Store) CompactStats {
	t.Helper()
	stats, err := db.Compact(t.Context(), nil)
	require.NoError(t, err)
	return stats
}

func TestKeyIsHiddenOnceItExpires(t *testing.T) {
	clock := newFakeClock()
	opts := &Options{Now: clock.Now}
	db := open(t, opts)
	put(t, db, "ttl", "1", TTL(time.Minute))
	put(t, db, "at", "2", ExpiresAt(clock.Now().Add(time.Minute)))
	put(t, db, "stays", "3")
	put(t, db, "already", "4", TTL(0))
	put(t, db, "long ago", "5", ExpiresAt(time.Unix(0, 0)))
	put(t, db, "before 1970", "6", ExpiresAt(time.Unix(-1000, 0)))
	put(t, db, "later", "7", ExpiresAt(time.Date(2250, 1, 1, 0, 0, 0, 0, time.UTC)))
	snapshot := db.Snapshot()
	defer snapshot.Close()
	e, err := db.Lookup("ttl")
	require.NoError(t, err)
	require.True(t, e.Expires.Equal(clock.Now().Add(time.Minute)))
	clock.move(time.Minute - time.Microsecond)
	require.Equal(t, []string{"at=2", "later=7", "stays=3", "ttl=1"}, scan(t, db, Range{}))
	clock.move(time.Microsecond)
	require.Equal(t, []string{"later=7", "stays=3"}, scan(t, db, Range{}))
	absent(t, db, "ttl")
	absent(t, db, "at")
	require.Equal(t, []string{"at=2", "later=7", "stays=3", "ttl=1"}, scan(t, snapshot, Range{}), "a snapshot has the time of its moment")
	require.NoError(t, db.View(func(s *Snapshot) error { absent(t, s, "ttl"); return nil }))
	require.NoError(t, db.Update(func(tx *Tx) error { absent(t, tx, "ttl"); return nil }))
	db = reopen(t, db, opts)
	require.Equal(t, []string{"later=7", "stays=3"}, scan(t, db, Range{}))
	put(t, db, "ttl", "again", IfAbsent())
	present(t, db, "ttl", "again")
}

func TestOverwritingTakesTheExpiryAway(t *testing.T) {
	clock := newFakeClock()
	db := open(t, &Options{Now: clock.Now})
	put(t, db, "k", "1", TTL(time.Minute))
	put(t, db, "k", "2")
	clock.move(time.Hour)
	present(t, db, "k", "2")
}

func TestExpiredKeyStaysAwayWhenTheClockIsSetBack(t *testing.T) {
	for name, restart := range map[string]func(t *testing.T, db *Store, opts *Options) *Store{
		"running": func(t *testing.T, db *Store, opts *Options) *Store { return db },
		"closed":  func(t *testing.T, db *Store, opts *Options) *Store { return reopen(t, db, opts) },
		"killed":  func(t *testing.T, db *Store, opts *Options) *Store { return openAt(t, killed(t, db), opts) },
		"compacted and closed": func(t *testing.T, db *Store, opts *Options) *Store {
			compactAll(t, db)
			return reopen(t, db, opts)
		},
		"a backup": func(t *testing.T, db *Store, opts *Options) *Store {
			dir := filepath.Join(t.TempDir(), "backup")
			require.NoError(t, db.Backup(t.Context(), dir))
			return openAt(t, dir, opts)
		},
		"a reader's backup": func(t *testing.T, db *Store, opts *Options) *Store {
			r, err := OpenReader(db.dir, &ReaderOptions{Now: opts.Now})
			require.NoError(t, err)
			defer r.Close()
			dir := filepath.Join(t.TempDir(), "backup")
			require.NoError(t, r.Backup(t.Context(), dir))
			return openAt(t, dir, opts)
		},
	} {
		t.Run(name, func(t *testing.T) {
			clock := newFakeClock()
			opts := &Options{Now: clock.Now}
			db := open(t, opts)
			put(t, db, "k", "1", TTL(time.Minute))
			clock.move(time.Hour)
			absent(t, db, "k")
			put(t, db, "other", "2", TTL(time.Second)) // the store records the time with it
			clock.move(-2 * time.Hour)
			absent(t, db, "k")
			back := restart(t, db, opts)
			absent(t, back, "k")
			absent(t, openAt(t, killed(t, back), opts), "k")
			put(t, back, "k", "new", IfAbsent())
			put(t, back, "brief", "2", TTL(time.Minute))
			if back == db {
				clock.move(2 * time.Hour) // this clock has no monotonic part: the store's time stands still until it catches up
			}
			clock.move(2 * time.Minute)
			absent(t, back, "brief")
		})
	}
}

// The clock runs ahead by a year for one write. Everything that expires within that
// year is hidden from then on, but nothing is destroyed.
func TestMomentUnderAClockFarAheadDestroysNothing(t *testing.T) {
	clock := newFakeClock()
	opts := &Options{Now: clock.Now, Compaction: Compaction{Off: true}}
	db := open(t, opts)
	put(t, db, "a", "1", TTL(30*24*time.Hour))
	put(t, db, "b", "2", TTL(60*24*time.Hour))
	put(t, db, "c", "3")
	clock.move(year)
	db.clock.begun = clock.Now() // the monotonic clock, which this one has not, stands still
	put(t, db, "ahead", "4", TTL(time.Hour))
	absent(t, db, "a")
	compactAll(t, db) // wall clock and T are past all expiries and the grace
	clock.move(-year)
	db = reopen(t, db, opts)
	require.NotEmpty(t, db.Recovery().ClockAhead)
	ahead, err := time.ParseDuration(db.Recovery().ClockAhead)
	require.NoError(t, err)
	require.InDelta(t, float64(year), float64(ahead), float64(time.Minute))
	absent(t, db, "a")
	compactAll(t, db)
	db = reopen(t, db, opts)
	absent(t, db, "b")
	require.NoError(t, db.Close())
	reset := *opts
	reset.ResetClock = true
	db = openAt(t, db.dir, &reset)
	require.Equal(t, []string{"a=1", "ahead=4", "b=2", "c=3"}, scan(t, db, Range{}))
	require.WithinDuration(t, clock.Now(), db.Stats().Clock, time.Second)
	db = reopen(t, db, opts) // the reset is for good
	require.Empty(t, db.Recovery().ClockAhead)
	require.WithinDuration(t, clock.Now(), db.Stats().Clock, time.Second)
}

func TestResetClockBringsHiddenKeysBack(t *testing.T) {
	for _, kill := range []bool{false, true} {
		clock := newFakeClock()
		opts := &Options{Now: clock.Now}
		db := open(t, opts)
		put(t, db, "a", "1", TTL(30*24*time.Hour))
		clock.move(year)
		put(t, db, "ahead", "2", TTL(time.Hour))
		absent(t, db, "a")
		clock.move(-year)
		dir := db.dir
		if kill {
			dir = killed(t, db)
		} else {
			require.NoError(t, db.Close())
		}
		db = openAt(t, dir, opts)
		require.NotEmpty(t, db.Recovery().ClockAhead)
		absent(t, db, "a")
		compactAll(t, db) // the wall clock is not past the expiry
		require.NoError(t, db.Close())
		db = openAt(t, dir, &Options{Now: clock.Now, ResetClock: true})
		present(t, db, "a", "1")
		present(t, db, "ahead", "2")
		dir = killed(t, db) // nothing was written since
		db = openAt(t, dir, opts)
		require.Empty(t, db.Recovery().ClockAhead)
		present(t, db, "a", "1")
	}
}

func TestTimeOfASampleIsNotTheClock(t *testing.T) {
	clock := newFakeClock()
	opts := &Options{Now: clock.Now}
	db := open(t, opts)
	put(t, db, "k", "1", TTL(time.Minute))
	_, err := db.Append("s", []byte("2"), At(clock.Now().Add(100*year)))
	require.NoError(t, err)
	present(t, db, "k", "1")
	db = openAt(t, killed(t, db), opts)
	present(t, db, "k", "1")
	require.Empty(t, db.Recovery().ClockAhead)
	compactAll(t, db)
	db = reopen(t, db, opts)
	present(t, db, "k", "1")
	require.WithinDuration(t, clock.Now(), db.Stats().Clock, time.Second)
}

func TestExpiredBytesGoOnlyAfterTheGrace(t *testing.T) {
	clock := newFakeClock()
	opts := &Options{Now: clock.Now, Compaction: Compaction{Off: true, Grace: time.Hour}}
	db := open(t, opts)
	put(t, db, "k", "1", TTL(time.Minute))
	put(t, db, "stays", "2")
	clock.move(time.Minute + time.Hour)
	compactAll(t, db)
	require.Equal(t, 2, db.Stats().Keys, "the grace is not over")
	clock.move(time.Second)
	compactAll(t, db)
	require.Equal(t, 1, db.Stats().Keys, "now the bytes go")
	require.Equal(t, []string{"stays=2"}, scan(t, db, Range{}))
	clock.move(-2 * time.Hour)
	db = reopen(t, db, opts)
	absent(t, db, "k")
}

func TestExpiredRecordThatHidesAnOlderOneStays(t *testing.T) {
	clock := newFakeClock()
	opts := &Options{Now: clock.Now, Compaction: Compaction{Off: true, Grace: time.Hour}}
	db := open(t, opts)
	put(t, db, "k", "old")
	db = reopen(t, db, opts) // segment 1 is sealed
	put(t, db, "k", "new", TTL(time.Minute))
	db = reopen(t, db, opts)
	clock.move(48 * time.Hour)
	inputs := []uint64{db.manifest.copy().Sealed[1].Segment}
	db.compaction.job.Lock()
	_, err := db.compactLocked(t.Context(), inputs, pace(0, nil), false)
	db.compaction.job.Unlock()
	require.NoError(t, err)
	absent(t, db, "k")
	db = reopen(t, db, opts)
	absent(t, db, "k")
	compactAll(t, db) // all at once: both go
	require.Zero(t, db.Stats().Keys)
	db = reopen(t, db, opts)
	absent(t, db, "k")
}
