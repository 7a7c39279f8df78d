package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/annalsdb/annals"
)

// killed measures opening a store whose writer was killed; see harness.child.
func killed(t *task, emit func(result)) error {
	var db store
	took, err := once(func() (err error) {
		if db, err = openPeer(t.Contestant, t.Dir, setup{durability: durable, writers: 1}); err == nil {
			_, err = db.Get(key(t.Keys / 2))
		}
		return err
	})
	if db == nil {
		return err
	}
	r := milliseconds(took)
	r.Workload = "reopen after SIGKILL, and first get"
	emit(r)
	return closing(db, err)
}

// fill fills a store and writes on, and prints a line when it is full: the parent
// kills it half a second later. Until then each contestant puts as much, which they
// all can: who puts faster would have more to read again.
func fill(t *task, emit func(result)) error {
	db, err := openPeer(t.Contestant, t.Dir, setup{durability: lazy, writers: 1})
	if err != nil {
		return err
	}
	if err := load(db, 0, t.Keys, t.Value); err != nil {
		return err
	}
	emit(result{Workload: "full"})
	begun := time.Now()
	for i := 0; ; i++ {
		if i%200 == 0 { // 200,000 a second
			time.Sleep(time.Until(begun.Add(time.Duration(i) * 5 * time.Microsecond)))
		}
		if err := db.Put(key(i%t.Keys), value(i, t.Value)); err != nil {
			return err
		}
	}
}

// dirBytes is the size of all files in a directory.
func dirBytes(dir string) (n int64) {
	filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil // files come and go
	})
	return n
}

// space overwrites everything five times and compares the directory with the
// lines that are alive.
func space(t *task, emit func(result)) error {
	keys := t.Keys / 5
	db, err := annals.Open(t.Dir, &annals.Options{Sync: annals.SyncEvery(100 * time.Millisecond)})
	if err != nil {
		return err
	}
	// Not recordOverhead: "dur" is only in the first line of a batch, of which there are
	// few here.
	live := float64(keys * (16 + t.Value + len(`{"seq":100000,"key":"","val":} 01234567`+"\n")))
	peak := int64(0)
	for round := range 5 {
		for i := range keys {
			if err := db.Put(string(key(i)), value(i+round, t.Value)); err != nil {
				return err
			}
			if i%4096 == 0 {
				peak = max(peak, dirBytes(t.Dir))
			}
		}
	}
	settled := settle(t.Dir, &peak)
	emit(result{Workload: "space while compaction runs", Value: float64(peak) / live, Unit: "times the live lines"})
	emit(result{Workload: "space when it is idle", Value: float64(settled) / live, Unit: "times the live lines"})
	return db.Close()
}

// settle waits until a directory has not changed for some seconds.
func settle(dir string, peak *int64) (size int64) {
	for since := time.Now(); time.Since(since) < 3*time.Second; time.Sleep(50 * time.Millisecond) {
		if now := dirBytes(dir); now != size {
			size, since = now, time.Now()
			*peak = max(*peak, size)
		}
	}
	return size
}

// compactions measures compaction flat out beside a copy, and what writers and
// readers notice of the one in the background.
func compactions(t *task, emit func(result)) error {
	for _, writers := range []int{1, 8} {
		if err := background(t, writers, emit); err != nil {
			return err
		}
	}
	dir := filepath.Join(t.Dir, "flat out")
	db, err := halfDead(dir, t, annals.Compaction{Off: true})
	if err != nil {
		return err
	}
	// Of both: the bytes of the segments, which are in memory, and a disk that is idle.
	syscall.Sync()
	var bytes int64
	took, err := once(func() (err error) {
		bytes, err = copyWithSync(dir, filepath.Join(t.Dir, "copy"))
		return err
	})
	if err != nil {
		return closing(db, err)
	}
	emit(result{Workload: "compaction flat out", Contestant: "floor", Value: float64(bytes) / 1e6 / took.Seconds(), Unit: "MB/s"})
	syscall.Sync()
	took, err = once(func() error {
		_, err := db.Compact(context.Background(), nil)
		return err
	})
	emit(result{Workload: "compaction flat out", Value: float64(bytes) / 1e6 / took.Seconds(), Unit: "MB/s"})
	return closing(db, err)
}

// halfDead makes a store in which every other record is dead.
func halfDead(dir string, t *task, c annals.Compaction) (*annals.Store, error) {
	db, err := annals.Open(dir, &annals.Options{Compaction: c})
	if err != nil {
		return nil, err
	}
	n := t.Keys / 4
	if err := load(annalsStore{db}, 0, n, t.Value); err != nil {
		return nil, err
	}
	for i := 0; i < n; i += 2 {
		var b annals.Batch
		for ; b.Len() < 1000 && i < n; i += 2 {
			b.Put(string(key(i)), value(i+1, t.Value))
		}
		if _, err := db.Apply(&b); err != nil {
			return nil, err
		}
	}
	return db, nil
}

// background measures durable puts and gets without compaction and beside it.
func background(t *task, writers int, emit func(result)) error {
	for _, running := range []bool{false, true} {
		dir := filepath.Join(t.Dir, fmt.Sprint("background ", writers, running))
		db, err := halfDead(dir, t, annals.Compaction{Off: true})
		if err != nil {
			return err
		}
		if err := db.Close(); err != nil {
			return err
		}
		if db, err = annals.Open(dir, &annals.Options{Compaction: annals.Compaction{Off: !running, MinLive: 0.9}}); err != nil {
			return err
		}
		suffix := fmt.Sprintf(", %d writer%s", writers, plural(writers))
		if running {
			suffix += " beside compaction"
		}
		if err := putsAndGets(db, t, writers, suffix, emit); err != nil {
			return closing(db, err)
		}
		if err := db.Close(); err != nil {
			return err
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

func putsAndGets(db *annals.Store, t *task, writers int, suffix string, emit func(result)) error {
	gets := make(chan result)
	go func() {
		r, _ := timed(1, t.For, 1, func(_, i int) error {
			_, err := db.Get(string(key(int(mix(uint64(i)) % uint64(t.Keys/4)))))
			time.Sleep(100 * time.Microsecond) // latency is measured, not the machine filled
			return err
		})
		gets <- r
	}()
	puts, err := timed(writers, t.For, 1, func(g, i int) error {
		return db.Put(string(key(t.Keys+i*writers+g)), value(i, t.Value))
	})
	got := <-gets
	puts.Workload, got.Workload = "puts"+suffix, "gets"+suffix
	emit(puts)
	emit(got)
	return err
}
