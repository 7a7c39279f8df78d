package main

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// result is what one contestant did in one workload in one round.
type result struct {
	Workload   string  `json:"name"`
	Contestant string  `json:"contestant"`
	Round      int     `json:"-"`                 // the parent knows, and the journal's key
	Value      float64 `json:"value"`             // in Unit
	Unit       string  `json:"unit"`              // "/s" for rates: more is better; else less is
	P50        int64   `json:"p50-ns,omitempty"`  // nanoseconds
	P99        int64   `json:"p99-ns,omitempty"`  // nanoseconds
	P999       int64   `json:"p999-ns,omitempty"` // nanoseconds
}

// timed runs op in several goroutines for a time and returns how often a second it
// ran, and how long it took. Of operations that are as quick as reading the clock
// only one in every is timed.
func timed(goroutines int, d time.Duration, every int, op func(goroutine, i int) error) (result, error) {
	var (
		wg    sync.WaitGroup
		stop  atomic.Bool
		total atomic.Int64
		hists = make([]*hdrhistogram.Histogram, goroutines)
		errs  = make([]error, goroutines)
	)
	begun := time.Now()
	for g := range goroutines {
		hists[g] = hdrhistogram.New(1, int64(time.Minute), 3)
		wg.Go(func() {
			i := 0
			var err error // not errs[g]: on its cache line are those of others
			for ; !stop.Load() && err == nil; i++ {
				if i%every != 0 {
					err = op(g, i)
					continue
				}
				t := time.Now()
				err = op(g, i)
				took := time.Since(t)
				hists[g].RecordValue(int64(took))
				if took > d { // one long operation must not make a round endless
					stop.Store(true)
				}
			}
			errs[g] = err
			total.Add(int64(i))
		})
	}
	time.AfterFunc(d, func() { stop.Store(true) })
	wg.Wait()
	took := time.Since(begun)
	for _, h := range hists[1:] {
		hists[0].Merge(h)
	}
	return result{
		Value: float64(total.Load()) / took.Seconds(), Unit: "/s",
		P50: hists[0].ValueAtQuantile(50), P99: hists[0].ValueAtQuantile(99), P999: hists[0].ValueAtQuantile(99.9),
	}, errors.Join(errs...)
}

// once times one call.
func once(fn func() error) (time.Duration, error) {
	begun := time.Now()
	err := fn()
	return time.Since(begun), err
}

func milliseconds(d time.Duration) result {
	return result{Value: float64(d) / float64(time.Millisecond), Unit: "ms"}
}
