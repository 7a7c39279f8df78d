package main

import (
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

var boltBucket = []byte("b")

type boltStore struct {
	db  *bbolt.DB
	put func(func(*bbolt.Tx) error) error
}

func openBolt(dir string, s setup) (store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	// The hash map free list and not syncing it are what its documentation
	// recommends for speed; NoSync is its only way not to sync each commit.
	db, err := bbolt.Open(filepath.Join(dir, "bolt"), 0o600, &bbolt.Options{
		FreelistType: bbolt.FreelistMapType, NoFreelistSync: true, NoSync: s.durability == lazy,
	})
	if err != nil {
		return nil, err
	}
	b := boltStore{db, db.Update}
	if s.writers > 1 {
		b.put = db.Batch // a lone writer would wait 10 ms for others
	}
	return b, db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(boltBucket)
		return err
	})
}

func (s boltStore) Put(key, value []byte) error {
	return s.put(func(tx *bbolt.Tx) error { return tx.Bucket(boltBucket).Put(key, value) })
}

func (s boltStore) Get(key []byte) (v []byte, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		v = append([]byte(nil), tx.Bucket(boltBucket).Get(key)...) // valid in the transaction only
		return nil
	})
	return v, err
}

func (s boltStore) Load(keys, values [][]byte) error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(boltBucket)
		for i := range keys {
			if err := b.Put(keys[i], values[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && s.db.NoSync {
		err = s.db.Sync()
	}
	return err
}

func (s boltStore) Scan(from []byte, limit int, fn func(key, value []byte)) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(boltBucket).Cursor()
		n := 0
		for k, v := c.Seek(from); k != nil; k, v = c.Next() {
			fn(k, v)
			if n++; n == limit {
				break
			}
		}
		return nil
	})
}

func (s boltStore) Keys(fn func(key []byte)) error {
	return s.Scan(nil, 0, func(k, _ []byte) { fn(k) })
}

func (s boltStore) Close() error { return s.db.Close() }
