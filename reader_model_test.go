package annals

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// abandon ends a store as the death of its process would: nothing more is written, and
// the lock is free.
func abandon(t testing.TB, db *Store) {
	t.Helper()
	db.log.Fail(errors.New("killed by the test"))
	db.stopCompaction()
	db.stopCheckpoints()
	close(db.closed)
	db.closing.Do(func() {})
	require.NoError(t, errors.Join(db.files.close(), db.lock.release()))
}

// readerModel is a store with a writer that comes and goes, and what readers beside it
// must show.
type readerModel struct {
	t     *testing.T
	rng   *rand.Rand
	dir   string
	clock *fakeClock
	opts  Options
	db    *Store // nil while there is no writer

	keys    model
	expires map[string]time.Time
	samples []Sample
	log     []uint64 // of every record
	kept    []keptSnapshot
}

// keptSnapshot is a snapshot with what it shows.
type keptSnapshot struct {
	*Snapshot
	keys    model
	samples int
}

func newReaderModel(t *testing.T, seed uint64) *readerModel {
	m := &readerModel{t: t, rng: rand.New(rand.NewPCG(seed, 1)), clock: newFakeClock(), keys: model{}, expires: map[string]time.Time{}}
	m.dir = filepath.Join(t.TempDir(), "store")
	m.opts = Options{SegmentSize: minSegment, Checkpoint: 40, Now: m.clock.Now}
	m.opts.Compaction.Grace = time.Second
	m.opts.Compaction.Off = m.rng.IntN(2) == 0
	if m.rng.IntN(2) == 0 {
		m.opts.History = 100
	}
	m.start()
	return m
}

func (m *readerModel) start() {
	db, err := Open(m.dir, &m.opts)
	require.NoError(m.t, err)
	m.db = db
}

// live is what has not expired.
func (m *readerModel) live() model {
	live := model{}
	for key, value := range m.keys {
		if at := m.expires[key]; at.IsZero() || m.clock.Now().Before(at) {
			live[key] = value
		}
	}
	return live
}

// write applies a batch.
func (m *readerModel) write() {
	var b Batch
	n := 1 + m.rng.IntN(6)
	var appended []int
	for range n {
		key := fmt.Sprint("k", m.rng.IntN(40))
		value := fmt.Sprintf("%0*d", 1+m.rng.IntN(200), len(m.log))
		switch m.rng.IntN(8) {
		case 0:
			b.Delete(key)
			delete(m.keys, key)
		case 1, 2:
			at := time.UnixMicro(int64(len(m.log)))
			b.Append("s", []byte(value), At(at))
			appended = append(appended, b.Len()-1)
			m.samples = append(m.samples, Sample{Series: "s", At: at, Value: []byte(value)})
		case 3:
			b.Put(key, []byte(value), TTL(3*time.Second))
			m.keys[key], m.expires[key] = value, m.clock.Now().Add(3*time.Second)
		default:
			b.Put(key, []byte(value))
			m.keys[key] = value
			delete(m.expires, key)
		}
	}
	last, err := m.db.Apply(&b)
	require.NoError(m.t, err)
	for i, at := range appended {
		m.samples[len(m.samples)-len(appended)+i].Seq = last - uint64(n-1-at)
	}
	for i := range n {
		m.log = append(m.log, last-uint64(n-1-i))
	}
}

// kill ends the writer without a word, perhaps in the middle of a write.
func (m *readerModel) kill() {
	open := m.db.manifest.copy().Open
	next := m.db.Durable() + 1
	abandon(m.t, m.db)
	m.db = nil
	if open == 0 || m.rng.IntN(2) == 0 {
		return
	}
	edit(m.t, (&opening{dir: m.dir}).path(open), func(text []byte) []byte {
		for len(text) > 0 && text[len(text)-1] == '\n' && text[len(text)-2] == '\n' {
			text = text[:len(text)-1]
		}
		text = append(text, withCRC(fmt.Sprintf(`{"seq":%d,"dur":%d,"more":true,"key":"torn","val":1}`, next, next-1))...)
		return append(text, `{"seq":`...)
	})
}

func (m *readerModel) step() {
	switch n := m.rng.IntN(100); {
	case m.db == nil && n < 50:
		m.start()
	case m.db == nil:
	case n < 60:
		m.write()
	case n < 66:
		m.clock.move(time.Duration(m.rng.IntN(3000)) * time.Millisecond)
	case n < 70:
		compactAll(m.t, m.db)
	case n < 74:
		require.NoError(m.t, m.db.log.Rotate(m.t.Context()))
	case n < 78:
		require.NoError(m.t, m.db.Checkpoint(m.t.Context()))
	case n < 80:
		require.NoError(m.t, m.db.Close())
		m.db = nil
	case n < 84:
		m.kill()
	}
}

// look holds a reader against the model.
func (m *readerModel) look(r *Reader) {
	t := m.t
	live := m.live()
	for range 3 {
		rg := Range{Reverse: m.rng.IntN(2) == 0, Limit: m.rng.IntN(8)}
		if m.rng.IntN(2) == 0 {
			rg.From = fmt.Sprint("k", m.rng.IntN(50))
		}
		if m.rng.IntN(2) == 0 {
			rg.To = fmt.Sprint("k", m.rng.IntN(50))
		}
		require.Equal(t, live.scan(rg), scan(t, r, rg), "%+v", rg)
	}
	live.holds(t, r)
	for range 5 {
		key := fmt.Sprint("k", m.rng.IntN(40))
		if value, ok := live[key]; ok {
			present(t, r, key, value)
		} else {
			absent(t, r, key)
		}
	}
	require.Equal(t, plain(m.samples), plain(samples(t, r, "s", Window{})))
	if len(m.kept) < 4 && m.rng.IntN(4) == 0 {
		m.kept = append(m.kept, keptSnapshot{r.Snapshot(), live, len(m.samples)})
	}
	for i, k := range m.kept {
		k.keys.holds(t, k)
		require.Equal(t, plain(m.samples[:k.samples]), plain(samples(t, k, "s", Window{})))
		if m.rng.IntN(20) == 0 {
			require.NoError(t, k.Close())
			m.kept = slices.Delete(m.kept, i, i+1)
			break
		}
	}
}

// watch takes what there is, and makes sure that it is what comes next.
func (m *readerModel) watch(r *Reader, seen int) int {
	for seen < len(m.log) {
		for rec, err := range r.Watch(m.t.Context(), m.log[seen]) {
			if gone := (*CompactedError)(nil); errors.As(err, &gone) {
				n, _ := slices.BinarySearch(m.log, gone.First)
				require.Greater(m.t, n, seen)
				seen = n
				break
			}
			require.NoError(m.t, err)
			require.Equal(m.t, m.log[seen], rec.Seq)
			if seen++; seen == len(m.log) {
				break
			}
		}
	}
	return seen
}

// A writer that rotates, compacts, saves its index, is closed and is killed; a reader
// that goes on, one that is opened anew, a watcher and snapshots beside it.
func TestReadersShowWhatTheModelSays(t *testing.T) {
	seeds := uint64(3)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := newReaderModel(t, seed)
			open := func() *Reader {
				r, err := OpenReader(m.dir, &ReaderOptions{Now: m.clock.Now})
				require.NoError(t, err)
				return r
			}
			r := open()
			seen := 0
			for range 250 {
				m.step()
				if m.rng.IntN(3) == 0 {
					continue
				}
				require.NoError(t, r.Refresh())
				m.look(r)
				if m.rng.IntN(4) == 0 {
					seen = m.watch(r, seen)
				}
				if m.rng.IntN(10) == 0 {
					other := open()
					m.look(other)
					for _, k := range m.kept {
						k.Close()
					}
					m.kept = nil
					require.NoError(t, other.Close())
				}
			}
			for _, k := range m.kept {
				k.Close()
			}
			require.NoError(t, r.Close())
			if m.db != nil {
				require.NoError(t, m.db.Close())
			}
		})
	}
}
