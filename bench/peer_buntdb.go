package main

import (
	"os"
	"path/filepath"

	"github.com/tidwall/buntdb"
)

type buntStore struct{ db *buntdb.DB }

func openBunt(dir string, s setup) (store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	db, err := buntdb.Open(filepath.Join(dir, "bunt"))
	if err != nil {
		return nil, err
	}
	var c buntdb.Config
	if err := db.ReadConfig(&c); err != nil {
		return nil, err
	}
	c.SyncPolicy = buntdb.Always
	if s.durability == lazy {
		c.SyncPolicy = buntdb.EverySecond
	}
	return buntStore{db}, db.SetConfig(c)
}

func (s buntStore) Put(key, value []byte) error {
	return s.db.Update(func(tx *buntdb.Tx) error {
		_, _, err := tx.Set(string(key), string(value), nil)
		return err
	})
}

func (s buntStore) Get(key []byte) (v []byte, err error) {
	err = s.db.View(func(tx *buntdb.Tx) error {
		text, err := tx.Get(string(key))
		v = []byte(text)
		return err
	})
	return v, err
}

func (s buntStore) Load(keys, values [][]byte) error {
	return s.db.Update(func(tx *buntdb.Tx) error {
		for i := range keys {
			if _, _, err := tx.Set(string(keys[i]), string(values[i]), nil); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s buntStore) Scan(from []byte, limit int, fn func(key, value []byte)) error {
	return s.db.View(func(tx *buntdb.Tx) error {
		n := 0
		return tx.AscendGreaterOrEqual("", string(from), func(k, v string) bool {
			fn([]byte(k), []byte(v))
			n++
			return n != limit
		})
	})
}

func (s buntStore) Keys(fn func(key []byte)) error {
	return s.Scan(nil, 0, func(k, _ []byte) { fn(k) })
}

func (s buntStore) Compact() error { return s.db.Shrink() }

func (s buntStore) Close() error { return s.db.Close() }
