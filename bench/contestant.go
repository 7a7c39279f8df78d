package main

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
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

// value is JSON of size bytes that differs with i. It is made for each put while the
// clock runs, so it must cost little beside one: its text is cut out of letters that
// were made before.
func value(i, size int) []byte {
	n := int64(i)
	v := append(make([]byte, 0, size+64), `{"id":`...)
	v = strconv.AppendInt(v, n, 10)
	v = append(v, `,"name":"user `...)
	v = strconv.AppendInt(v, n, 10)
	v = append(v, `","score":`...)
	v = strconv.AppendInt(v, n%1000, 10)
	v = append(v, '.', byte('0'+n/10%10), byte('0'+n%10), ',')
	v = append(v, `"text":"`...)
	for text := letters[mix(uint64(i))%uint64(len(letters)):]; len(v) < size-2; text = letters {
		v = append(v, text[:min(len(text), size-2-len(v))]...)
	}
	return append(v[:max(len(v), size-2)], `"}`...)
}

// letters are drawn from 32, so that nothing is gained by compressing them.
var letters = func() string {
	b := make([]byte, 64<<10)
	for i := range b {
		b[i] = "abcdefghijklmnopqrstuvwxyz012345"[mix(uint64(i))&31]
	}
	return string(b)
}()
