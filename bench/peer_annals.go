package main

import (
	"context"
	"time"
	"unsafe"

	"github.com/annalsdb/annals"
)

type annalsStore struct{ db *annals.Store }

func annalsOptions(s setup) *annals.Options {
	if s.durability == lazy {
		return &annals.Options{Sync: annals.SyncEvery(100 * time.Millisecond)}
	}
	return nil
}

func openAnnals(dir string, s setup) (store, error) {
	db, err := annals.Open(dir, annalsOptions(s))
	return annalsStore{db}, err
}

func (s annalsStore) Put(key, value []byte) error    { return s.db.Put(stringOf(key), value) }
func (s annalsStore) Get(key []byte) ([]byte, error) { return s.db.Get(stringOf(key)) }

func (s annalsStore) Load(keys, values [][]byte) error {
	var b annals.Batch
	for i := range keys {
		b.Put(stringOf(keys[i]), values[i])
	}
	_, err := s.db.Apply(&b)
	return err
}

func (s annalsStore) Scan(from []byte, limit int, fn func(key, value []byte)) error {
	for e, err := range s.db.Scan(annals.Range{From: stringOf(from), Limit: limit}) {
		if err != nil {
			return err
		}
		fn(bytesOf(e.Key), e.Value)
	}
	return nil
}

// stringOf is a key without a copy: annals takes strings, most peers bytes, and the
// harness makes each key anew.
func stringOf(key []byte) string { return unsafe.String(unsafe.SliceData(key), len(key)) }

// bytesOf is a key without a copy: annals gives strings, most peers bytes, and nobody
// who measures changes them.
func bytesOf(key string) []byte { return unsafe.Slice(unsafe.StringData(key), len(key)) }

func (s annalsStore) Keys(fn func(key []byte)) error {
	for e, err := range s.db.Scan(annals.Range{KeysOnly: true}) {
		if err != nil {
			return err
		}
		fn(bytesOf(e.Key))
	}
	return nil
}

func (s annalsStore) Compact() error {
	_, err := s.db.Compact(context.Background(), nil)
	return err
}

func (s annalsStore) Close() error { return s.db.Close() }
