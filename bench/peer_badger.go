package main

import "github.com/dgraph-io/badger/v4"

type badgerStore struct{ db *badger.DB }

func openBadger(dir string, s setup) (store, error) {
	db, err := badger.Open(badger.DefaultOptions(dir).WithLogger(nil).WithSyncWrites(s.durability == durable))
	return badgerStore{db}, err
}

func (s badgerStore) Put(key, value []byte) error {
	return s.db.Update(func(tx *badger.Txn) error { return tx.Set(key, value) })
}

func (s badgerStore) Get(key []byte) (v []byte, err error) {
	err = s.db.View(func(tx *badger.Txn) error {
		item, err := tx.Get(key)
		if err != nil {
			return err
		}
		v, err = item.ValueCopy(nil)
		return err
	})
	return v, err
}

func (s badgerStore) Load(keys, values [][]byte) error {
	b := s.db.NewWriteBatch()
	for i := range keys {
		if err := b.Set(keys[i], values[i]); err != nil {
			return err
		}
	}
	if err := b.Flush(); err != nil {
		return err
	}
	return s.db.Sync()
}

func (s badgerStore) Scan(from []byte, limit int, fn func(key, value []byte)) error {
	opts := badger.DefaultIteratorOptions
	if limit > 0 {
		opts.PrefetchSize = min(limit, 100)
	}
	return s.iterate(opts, from, limit, func(item *badger.Item) error {
		return item.Value(func(v []byte) error {
			fn(item.Key(), v)
			return nil
		})
	})
}

func (s badgerStore) Keys(fn func(key []byte)) error {
	opts := badger.DefaultIteratorOptions
	opts.PrefetchValues = false
	return s.iterate(opts, nil, 0, func(item *badger.Item) error {
		fn(item.Key())
		return nil
	})
}

func (s badgerStore) iterate(opts badger.IteratorOptions, from []byte, limit int, fn func(*badger.Item) error) error {
	return s.db.View(func(tx *badger.Txn) error {
		it := tx.NewIterator(opts)
		defer it.Close()
		n := 0
		for it.Seek(from); it.Valid(); it.Next() {
			if err := fn(it.Item()); err != nil {
				return err
			}
			if n++; n == limit {
				break
			}
		}
		return nil
	})
}

func (s badgerStore) Compact() error { return s.db.Flatten(2) }

func (s badgerStore) Close() error { return s.db.Close() }
