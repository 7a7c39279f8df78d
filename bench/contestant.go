package main

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// durability is what a write that has returned survives.
type durability int

const (
	durable durability = iota // a power cut
	lazy                      // a crash of the process at the most; synced about every 100 ms where the peer can do that
)

// setup says how a store is to be opened.
type setup struct {
	durability
	writers int // that will put at the same time
}

// store is what a key-value contestant can do.
type store interface {
	Put(key, value []byte) error
	// Get returns the value. It must not be used after the next call.
	Get(key []byte) ([]byte, error)
	// Load puts many keys in one batch that is durable when it returns.
	Load(keys, values [][]byte) error
	// Scan calls fn with up to limit keys from one on, and their values; 0 is no limit.
	Scan(from []byte, limit int, fn func(key, value []byte)) error
	// Keys calls fn with every key.
	Keys(fn func(key []byte)) error
	Close() error
}

// compacter is a store that can bring its files into their best order.
type compacter interface{ Compact() error }

// peers are the key-value contestants, by name. The first is ours.
var peers = []struct {
	name string
	open func(dir string, s setup) (store, error)
}{
	{"annals", openAnnals},
	{"bbolt", openBolt},
	{"pebble", openPebble},
	{"badger", openBadger},
	{"sqlite", openSQLite},
	{"buntdb", openBunt},
	{"goleveldb", openLevel},
}

func openPeer(name, dir string, s setup) (store, error) {
	for _, p := range peers {
		if p.name == name {
			return p.open(dir, s)
		}
	}
	return nil, fmt.Errorf("no contestant is called %q", name)
}

// key is the i-th key: 16 bytes, in an order that has nothing to do with i.
func key(i int) []byte {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], mix(uint64(i)))
	k := make([]byte, 16)
	hex.Encode(k, n[:])
	return k
}

// mix is the finaliser of splitmix64: a bijection that scatters (Steele, Lea and
// Flood, 2014).
func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// value is JSON of size bytes that differs with i.
func value(i, size int) []byte {
	v := fmt.Appendf(make([]byte, 0, size+64), `{"id":%d,"name":"user %d","score":%d.%02d,"text":"`, i, i, i%1000, i%100)
	for n := uint64(i); len(v) < size-2; n = mix(n) {
		v = append(v, "abcdefghijklmnopqrstuvwxyz012345"[n&31])
	}
	return append(v[:max(len(v), size-2)], `"}`...)
}
