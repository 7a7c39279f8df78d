package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// scale is how much is measured.
type scale struct {
	Keys  int           // in the data set
	Value int           // bytes of a value
	For   time.Duration // of each timed workload
}

// task is what one process measures: a group of workloads on one contestant.
type task struct {
	scale
	Group, Contestant string
	Dir               string // a directory of its own, empty at first
	Data              string // the contestant's data set
}

// group is a set of workloads that share a process.
type group struct {
	name        string
	contestants []string
	run         func(t *task, emit func(result)) error
}

func groups() []group {
	var kv, logs []string
	for _, p := range peers {
		kv = append(kv, p.name)
	}
	for _, a := range appenders {
		logs = append(logs, a.name)
	}
	return []group{
		{"durable", append([]string{"floor"}, kv...), durablePuts},
		{"load", append([]string{"floor"}, kv...), loads},
		{"lazy", append([]string{"floor"}, kv...), lazyPuts},
		{"append", append([]string{"floor"}, logs...), appends},
		{"read", append([]string{"floor"}, kv...), reads},
		{"mixed", kv, mixed},
		{"ycsb", kv, runYCSB},
		{"reopen", kv, reopens},
		{"killed", []string{"annals", "buntdb"}, killed},
		{"heap", kv, heap},
		{"space", []string{"annals"}, space},
		{"compaction", []string{"annals"}, compactions},
	}
}

// prepare makes the data set of a contestant, in random order of keys.
func prepare(t *task, emit func(result)) error {
	db, err := openPeer(t.Contestant, t.Dir, setup{durability: durable, writers: 1})
	if err != nil {
		return err
	}
	took, err := once(func() error { return load(db, 0, t.Keys, t.Value) })
	if err != nil {
		return err
	}
	emit(result{Workload: "load everything", Value: float64(t.Keys) / took.Seconds(), Unit: "/s"})
	return db.Close()
}

// load puts keys from one number up to another in batches of 1,000.
func load(db store, from, to, size int) error {
	var keys, values [][]byte
	for i := from; i < to; i++ {
		keys, values = append(keys, key(i)), append(values, value(i, size))
		if len(keys) == 1000 || i == to-1 {
			if err := db.Load(keys, values); err != nil {
				return err
			}
			keys, values = keys[:0], values[:0]
		}
	}
	return nil
}

func durablePuts(t *task, emit func(result)) error {
	if t.Contestant == "floor" {
		r, err := floorSync(t.Dir, 16+t.Value+recordOverhead, t.For)
		r.Workload = "durable put, 1 writer"
		emit(r)
		if err != nil {
			return err
		}
		for _, writers := range []int{8, 64} {
			r, err := floorCycle(t.Dir, writers, 16+t.Value+recordOverhead, t.For)
			r.Workload = fmt.Sprintf("durable put, %d writers", writers)
			emit(r)
			if err != nil {
				return err
			}
		}
		return nil
	}
	for _, writers := range []int{1, 8, 64} {
		db, err := openPeer(t.Contestant, filepath.Join(t.Dir, fmt.Sprint(writers)), setup{durability: durable, writers: writers})
		if err != nil {
			return err
		}
		r, err := timed(writers, t.For, 1, func(g, i int) error { return db.Put(key(i*writers+g), value(i, t.Value)) })
		r.Workload = fmt.Sprintf("durable put, %d writer%s", writers, plural(writers))
		emit(r)
		if err := closing(db, err); err != nil {
			return err
		}
	}
	return nil
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

func closing(db interface{ Close() error }, err error) error {
	if closed := db.Close(); err == nil {
		err = closed
	}
	return err
}

func loads(t *task, emit func(result)) error {
	if t.Contestant == "floor" {
		r, err := floorLoad(t.Dir, 16+t.Value+recordOverhead, t.For)
		r.Workload = "load, synced batches of 1,000"
		emit(r)
		return err
	}
	db, err := openPeer(t.Contestant, t.Dir, setup{durability: durable, writers: 1})
	if err != nil {
		return err
	}
	n := 0
	r, err := timed(1, 2*t.For, 1, func(_, i int) error {
		n += 1000
		return load(db, n-1000, n, t.Value)
	})
	r.Workload = "load, synced batches of 1,000"
	r.Value *= 1000
	emit(r)
	return closing(db, err)
}

func lazyPuts(t *task, emit func(result)) error {
	if t.Contestant == "floor" {
		r, err := floorWrite(t.Dir, t.For, 0)
		r.Workload = "put of 64 KiB, not synced"
		emit(r)
		if err != nil {
			return err
		}
		r, err = floorWrite(t.Dir, t.For, 100*time.Millisecond)
		r.Workload = "write of 64 KiB, synced every 100 ms"
		emit(r)
		return err
	}
	for _, size := range []int{t.Value, 64 << 10} {
		db, err := openPeer(t.Contestant, filepath.Join(t.Dir, fmt.Sprint(size)), setup{durability: lazy, writers: 1})
		if err != nil {
			return err
		}
		v, every, name := value(1, size), 16, "put, not synced"
		if size != t.Value {
			every, name = 1, "put of 64 KiB, not synced"
		}
		r, err := timed(1, t.For, every, func(_, i int) error { return db.Put(key(i), v) })
		r.Workload = name
		emit(r)
		if err := closing(db, err); err != nil {
			return err
		}
	}
	return nil
}

func appends(t *task, emit func(result)) error {
	if t.Contestant == "floor" {
		r, err := floorSync(t.Dir, t.Value+recordOverhead+len(`"at":1732284000.123456,`), t.For)
		r.Workload = "durable append, 1 writer"
		emit(r)
		return err
	}
	run := func(name string, s setup, every int) error {
		db, err := openAppender(t.Contestant, filepath.Join(t.Dir, fmt.Sprintf("%d-%d", s.durability, s.writers)), s)
		if err != nil {
			return err
		}
		v := value(1, t.Value)
		r, err := timed(s.writers, t.For, every, func(_, _ int) error { return db.Append(v) })
		r.Workload = name
		emit(r)
		return closing(db, err)
	}
	if err := run("durable append, 1 writer", setup{durable, 1}, 1); err != nil {
		return err
	}
	if err := run("durable append, 8 writers", setup{durable, 8}, 1); err != nil {
		return err
	}
	for _, a := range appenders {
		if a.name == t.Contestant && a.lazy {
			return run("append, not synced", setup{lazy, 1}, 16)
		}
	}
	return nil
}

// reads leaves the data set as it is, but for its order in the second half.
func reads(t *task, emit func(result)) error {
	if t.Contestant == "floor" {
		return gets(t, newFloorMap(t.Keys, t.Value), emit)
	}
	db, err := openPeer(t.Contestant, t.Data, setup{durability: durable, writers: 1})
	if err != nil {
		return err
	}
	if err := gets(t, db, emit); err != nil {
		return closing(db, err)
	}
	if err := scans(t, db, "", emit); err != nil {
		return closing(db, err)
	}
	if c, ok := db.(compacter); ok {
		if err := c.Compact(); err != nil {
			return closing(db, err)
		}
		time.Sleep(2 * time.Second) // what a store does behind a compaction is not part of a scan
	}
	return closing(db, scans(t, db, ", compacted", emit))
}

// gets reads keys at random.
func gets(t *task, db interface {
	Get(key []byte) ([]byte, error)
}, emit func(result)) error {
	for _, goroutines := range []int{1, 2} {
		rnds := []*rand.Rand{rand.New(rand.NewPCG(1, 1)), rand.New(rand.NewPCG(2, 2))}
		r, err := timed(goroutines, t.For, 64, func(g, _ int) error {
			n := rnds[g].IntN(t.Keys)
			v, err := db.Get(key(n))
			if err == nil && len(v) != t.Value {
				err = fmt.Errorf("key %d has a value of %d bytes", n, len(v))
			}
			return err
		})
		r.Workload = fmt.Sprintf("random get, %d goroutine%s", goroutines, plural(goroutines))
		emit(r)
		if err != nil {
			return err
		}
	}
	return nil
}

func scans(t *task, db store, suffix string, emit func(result)) error {
	count, last := 0, make([]byte, 0, 16)
	see := func(k []byte) {
		if bytes.Compare(last, k) < 0 {
			count++
		}
		last = append(last[:0], k...)
	}
	for name, scan := range map[string]func() error{
		"scan of everything": func() error { return db.Scan(nil, 0, func(k, _ []byte) { see(k) }) },
		"scan of the keys":   func() error { return db.Keys(see) },
	} {
		count, last = 0, last[:0]
		took, err := once(scan)
		if err == nil && count < t.Keys {
			err = fmt.Errorf("%s: %d of %d keys, in order", name, count, t.Keys)
		}
		if err != nil {
			return err
		}
		emit(result{Workload: name + suffix, Value: float64(count) / took.Seconds(), Unit: "/s"})
	}
	rnd, rows := rand.New(rand.NewPCG(3, 3)), 0
	r, err := timed(1, t.For, 1, func(_, _ int) error {
		return db.Scan(key(rnd.IntN(t.Keys)), 50, func(_, _ []byte) { rows++ })
	})
	r.Workload, r.Value = "scans of 50 rows"+suffix, r.Value*50
	emit(r)
	return err
}

func mixed(t *task, emit func(result)) error {
	db, err := openPeer(t.Contestant, t.Data, setup{durability: lazy, writers: 1})
	if err != nil {
		return err
	}
	rnd := rand.New(rand.NewPCG(4, 4))
	r, err := timed(1, t.For, 16, func(_, i int) error {
		k := key(rnd.IntN(t.Keys))
		if i%2 == 0 {
			return db.Put(k, value(i, t.Value))
		}
		_, err := db.Get(k)
		return err
	})
	r.Workload = "mixed 50/50 get and put"
	emit(r)
	return closing(db, err)
}

func runYCSB(t *task, emit func(result)) error {
	db, err := openPeer(t.Contestant, t.Data, setup{durability: lazy, writers: 1})
	if err != nil {
		return err
	}
	y := ycsb{db: db, rnd: rand.New(rand.NewPCG(5, 5)), zipf: newZipf(t.Keys), keys: t.Keys, size: t.Value}
	for _, m := range ycsbMixes {
		y.ycsbMix = m
		r, err := timed(1, t.For, 16, func(_, i int) error { return y.step(i) })
		r.Workload = "YCSB " + m.name
		emit(r)
		if err != nil {
			return closing(db, err)
		}
	}
	return closing(db, nil)
}

func reopens(t *task, emit func(result)) error {
	var db store
	took, err := once(func() (err error) {
		db, err = openPeer(t.Contestant, t.Data, setup{durability: durable, writers: 1})
		return err
	})
	if err != nil {
		return err
	}
	tell := func(name string, d time.Duration) {
		r := milliseconds(d)
		r.Workload = name
		emit(r)
	}
	tell("reopen after a clean close", took)
	first, err := once(func() error {
		_, err := db.Get(key(t.Keys / 2))
		return err
	})
	tell("reopen and first get", took+first)
	if err != nil {
		return closing(db, err)
	}
	first, err = once(func() error { return db.Scan(nil, 1, func(_, _ []byte) {}) })
	tell("reopen and first scan", took+first)
	emit(result{Workload: "heap after a reopen", Value: float64(heapInUse()) / float64(t.Keys), Unit: "B a key"})
	runtime.KeepAlive(db)
	return closing(db, err)
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// heap fills a store and tells what each key costs.
func heap(t *task, emit func(result)) error {
	db, err := openPeer(t.Contestant, t.Dir, setup{durability: durable, writers: 1})
	if err != nil {
		return err
	}
	before := heapInUse()
	if err := load(db, 0, t.Keys, t.Value); err != nil {
		return closing(db, err)
	}
	emit(result{Workload: "heap while filling", Value: float64(heapInUse()-before) / float64(t.Keys), Unit: "B a key"})
	runtime.KeepAlive(db)
	if err := db.Close(); err != nil {
		return err
	}
	return os.RemoveAll(t.Dir)
}
