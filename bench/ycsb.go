package main

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// mix of a YCSB workload: shares of reads, updates, inserts, scans and
// read-modify-writes, and whether reads go to the latest keys (Cooper et al.,
// "Benchmarking Cloud Serving Systems with YCSB", 2010).
type ycsbMix struct {
	name                               string
	read, update, insert, scan, modify float64
	latest                             bool
}

var ycsbMixes = []ycsbMix{
	{name: "A", read: 0.5, update: 0.5},
	{name: "B", read: 0.95, update: 0.05},
	{name: "C", read: 1},
	{name: "D", read: 0.95, insert: 0.05, latest: true},
	{name: "E", scan: 0.95, insert: 0.05},
	{name: "F", read: 0.5, modify: 0.5},
}

// zipf draws ranks below n with the exponent 0.99 that YCSB uses, which
// rand.Zipf does not take (Gray et al., "Quickly generating billion-record
// synthetic databases", 1994).
type zipf struct {
	n                   float64
	alpha, zetan, eta   float64
	theta, halfPowTheta float64
}

func newZipf(n int) *zipf {
	const theta = 0.99
	z := &zipf{n: float64(n), theta: theta, alpha: 1 / (1 - theta)}
	for i := 1; i <= n; i++ {
		z.zetan += 1 / math.Pow(float64(i), theta)
	}
	zeta2 := 1 + 1/math.Pow(2, theta)
	z.halfPowTheta = 1 + math.Pow(0.5, theta)
	z.eta = (1 - math.Pow(2/z.n, 1-theta)) / (1 - zeta2/z.zetan)
	return z
}

func (z *zipf) rank(rnd *rand.Rand) int {
	u := rnd.Float64()
	switch uz := u * z.zetan; {
	case uz < 1:
		return 0
	case uz < z.halfPowTheta:
		return 1
	}
	return int(z.n * math.Pow(z.eta*u-z.eta+1, z.alpha))
}

// ycsb is one goroutine's part of a workload.
type ycsb struct {
	ycsbMix
	db    store
	rnd   *rand.Rand
	zipf  *zipf
	keys  int // how many there are
	size  int // of values
	spare []byte
}

func (y *ycsb) pick() int {
	n, r := y.keys, y.zipf.rank(y.rnd)
	if y.latest {
		return max(n-1-r, 0)
	}
	return int(mix(uint64(r)) % uint64(n)) // the popular keys are scattered
}

func (y *ycsb) step(i int) error {
	p := y.rnd.Float64()
	switch {
	case p < y.read:
		_, err := y.db.Get(key(y.pick()))
		return err
	case p < y.read+y.update:
		return y.db.Put(key(y.pick()), value(i, y.size))
	case p < y.read+y.update+y.insert:
		y.keys++
		return y.db.Put(key(y.keys-1), value(y.keys-1, y.size))
	case p < y.read+y.update+y.insert+y.scan:
		rows := 0
		err := y.db.Scan(key(y.pick()), 1+y.rnd.IntN(100), func(_, v []byte) { rows += len(v) })
		if err == nil && rows == 0 {
			err = fmt.Errorf("a scan from an existing key found nothing")
		}
		return err
	}
	k := key(y.pick())
	v, err := y.db.Get(k)
	if err != nil {
		return err
	}
	y.spare = append(y.spare[:0], v...)
	return y.db.Put(k, value(i, len(y.spare)))
}
