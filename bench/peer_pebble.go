package main

import (
	"context"

	"github.com/cockroachdb/pebble/v2"
)

type pebbleStore struct {
	db   *pebble.DB
	sync *pebble.WriteOptions
}

// quiet keeps a peer's log lines out of the results.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	pebble.DefaultLogger.Fatalf(format, args...)
}

func openPebble(dir string, s setup) (store, error) {
	cache := pebble.NewCache(128 << 20)
	defer cache.Unref()
	db, err := pebble.Open(dir, &pebble.Options{Cache: cache, MemTableSize: 64 << 20, Logger: quiet{}})
	p := pebbleStore{db, pebble.Sync}
	if s.durability == lazy {
		p.sync = pebble.NoSync
	}
	return p, err
}

func (s pebbleStore) Put(key, value []byte) error { return s.db.Set(key, value, s.sync) }

func (s pebbleStore) Get(key []byte) ([]byte, error) {
	v, closer, err := s.db.Get(key)
	if err != nil {
		return nil, err
	}
	v = append([]byte(nil), v...)
	return v, closer.Close()
}

func (s pebbleStore) Load(keys, values [][]byte) error {
	b := s.db.NewBatch()
	for i := range keys {
		if err := b.Set(keys[i], values[i], nil); err != nil {
			return err
		}
	}
	return b.Commit(pebble.Sync)
}

func (s pebbleStore) Scan(from []byte, limit int, fn func(key, value []byte)) error {
	return s.iterate(from, limit, func(it *pebble.Iterator) error {
		v, err := it.ValueAndErr()
		fn(it.Key(), v)
		return err
	})
}

func (s pebbleStore) Keys(fn func(key []byte)) error {
	return s.iterate(nil, 0, func(it *pebble.Iterator) error {
		fn(it.Key())
		return nil
	})
}

func (s pebbleStore) iterate(from []byte, limit int, fn func(*pebble.Iterator) error) error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: from})
	if err != nil {
		return err
	}
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		if err := fn(it); err != nil {
			it.Close()
			return err
		}
		if n++; n == limit {
			break
		}
	}
	return it.Close()
}

func (s pebbleStore) Compact() error {
	return s.db.Compact(context.Background(), []byte("0"), []byte("g"), true)
}

func (s pebbleStore) Close() error { return s.db.Close() }
