package main

import (
	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"
)

type levelStore struct {
	db   *leveldb.DB
	sync *opt.WriteOptions
}

func openLevel(dir string, s setup) (store, error) {
	db, err := leveldb.OpenFile(dir, &opt.Options{
		Filter: filter.NewBloomFilter(10), BlockCacheCapacity: 128 << 20, WriteBuffer: 64 << 20, Strict: opt.StrictAll,
	})
	return levelStore{db, &opt.WriteOptions{Sync: s.durability == durable}}, err
}

func (s levelStore) Put(key, value []byte) error    { return s.db.Put(key, value, s.sync) }
func (s levelStore) Get(key []byte) ([]byte, error) { return s.db.Get(key, nil) }

func (s levelStore) Load(keys, values [][]byte) error {
	var b leveldb.Batch
	for i := range keys {
		b.Put(keys[i], values[i])
	}
	return s.db.Write(&b, &opt.WriteOptions{Sync: true})
}

func (s levelStore) Scan(from []byte, limit int, fn func(key, value []byte)) error {
	return s.iterate(from, limit, func(it iterator.Iterator) { fn(it.Key(), it.Value()) })
}

func (s levelStore) Keys(fn func(key []byte)) error {
	return s.iterate(nil, 0, func(it iterator.Iterator) { fn(it.Key()) })
}

func (s levelStore) iterate(from []byte, limit int, fn func(iterator.Iterator)) error {
	it := s.db.NewIterator(&util.Range{Start: from}, nil)
	defer it.Release()
	for n := 0; it.Next(); {
		fn(it)
		if n++; n == limit {
			break
		}
	}
	return it.Error()
}

func (s levelStore) Compact() error { return s.db.CompactRange(util.Range{}) }

func (s levelStore) Close() error { return s.db.Close() }
