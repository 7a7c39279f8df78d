package main

import (
	"math"
	"slices"
)

// goal is one figure that is to be reached: a ratio of two results of the same
// round, or, without a denominator, a figure itself.
type goal struct {
	name   string
	of     figure
	to     figure
	atMost bool
	target float64
	unit   string  // of a figure without denominator
	times  float64 // the denominator's factor; 0 is 1
}

// figure names a result.
type figure struct {
	workload   string
	contestant string // bestPeer: the best of all but annals and the floor
	p99        bool
}

const bestPeer = "best peer"

func ours(workload string) figure { return figure{workload: workload, contestant: "annals"} }

func by(contestant, workload string) figure {
	return figure{workload: workload, contestant: contestant}
}

func atLeast(target float64, workload, contestant string) goal {
	return goal{name: workload + " / " + contestant, of: ours(workload), to: by(contestant, workload), target: target}
}

func p99(f figure) figure {
	f.p99 = true
	return f
}

// goals are what the project wants to be: see README.md.
func goals() []goal {
	list := []goal{
		atLeast(0.95, "durable put, 1 writer", "floor"),
		atLeast(1, "durable put, 1 writer", bestPeer),
		{name: "durable put, 8 writers / 1 writer", of: ours("durable put, 8 writers"), to: ours("durable put, 1 writer"), target: 5},
		atLeast(3, "durable put, 64 writers", "pebble"),
		{name: "durable put, 64 writers / 64 times the floor", of: ours("durable put, 64 writers"), to: by("floor", "durable put, 1 writer"), times: 64, target: 0.5},
		{name: "durable put, 64 writers, p99 / pebble's", of: p99(ours("durable put, 64 writers")), to: p99(by("pebble", "durable put, 64 writers")), atMost: true, target: 0.5},
		atLeast(3, "load, synced batches of 1,000", "pebble"),
		atLeast(3, "put, not synced", bestPeer),
		atLeast(0.5, "put of 64 KiB, not synced", "floor"),
		atLeast(0.95, "durable append, 1 writer", "floor"),
		atLeast(3, "durable append, 8 writers", "tidwall/wal"),
		atLeast(3, "durable append, 8 writers", "raft-wal"),
		atLeast(3, "append, not synced", "slog file"),
		atLeast(3.5, "random get, 1 goroutine", "bbolt"),
		{name: "random get, 2 goroutines / 1 goroutine", of: ours("random get, 2 goroutines"), to: ours("random get, 1 goroutine"), target: 1.8},
		atLeast(0.5, "scan of everything", "pebble"),
		atLeast(1.2, "scan of everything, compacted", "pebble"),
		atLeast(1, "scan of the keys", "bbolt"),
		atLeast(1, "scans of 50 rows, compacted", "pebble"),
		atLeast(4, "mixed 50/50 get and put", "buntdb"),
		atLeast(1, "YCSB A", bestPeer), atLeast(1, "YCSB B", bestPeer), atLeast(1, "YCSB C", bestPeer),
		atLeast(1, "YCSB D", bestPeer), atLeast(1, "YCSB E", "pebble"), atLeast(1, "YCSB F", bestPeer),
		{name: "reopen after a clean close", of: ours("reopen after a clean close"), atMost: true, target: 10, unit: "ms"},
		{name: "reopen after SIGKILL, times faster than buntdb", of: by("buntdb", "reopen after SIGKILL, and first get"), to: ours("reopen after SIGKILL, and first get"), target: 20},
		{name: "heap while filling", of: ours("heap while filling"), atMost: true, target: 16 + 48, unit: "B a key"},
		{name: "heap after a reopen", of: ours("heap after a reopen"), atMost: true, target: 16, unit: "B a key"},
		{name: "space when compaction is idle", of: ours("space when it is idle"), atMost: true, target: 1.3, unit: "times the live lines"},
		{name: "space while compaction runs", of: ours("space while compaction runs"), atMost: true, target: 2.5, unit: "times the live lines"},
		{name: "compaction flat out / a copy with fsync", of: ours("compaction flat out"), to: by("floor", "compaction flat out"), target: 0.4},
	}
	for _, w := range []string{", 1 writer", ", 8 writers"} {
		list = append(list,
			goal{name: "p99 of puts" + w + ", beside compaction / without", of: p99(ours("puts" + w + " beside compaction")), to: p99(ours("puts" + w)), atMost: true, target: 3},
			goal{name: "p99 of gets" + w + ", beside compaction / without", of: p99(ours("gets" + w + " beside compaction")), to: p99(ours("gets" + w)), atMost: true, target: 2})
	}
	return list
}

// outcome is a goal with what was measured.
type outcome struct {
	goal
	value float64
	met   bool
}

// judge returns the outcomes of all goals that the results tell about.
func judge(results []result, list []goal) (all []outcome) {
	for _, g := range list {
		var values []float64
		for round := 1; ; round++ {
			of, known := find(results, round, g.of)
			if !known {
				break
			}
			to := 1.0
			if g.to.workload != "" {
				if to, known = find(results, round, g.to); !known {
					break
				}
			}
			if g.times != 0 {
				to *= g.times
			}
			values = append(values, of/to)
		}
		if len(values) == 0 {
			continue
		}
		v := median(values)
		all = append(all, outcome{g, v, v >= g.target && !g.atMost || v <= g.target && g.atMost})
	}
	return all
}

func find(results []result, round int, f figure) (v float64, known bool) {
	for _, r := range results {
		if r.Round != round || r.Workload != f.workload {
			continue
		}
		if f.contestant == bestPeer {
			if r.Contestant != "annals" && r.Contestant != "floor" {
				v, known = math.Max(v, r.Value), true
			}
			continue
		}
		if r.Contestant == f.contestant {
			if f.p99 {
				return float64(r.P99), true
			}
			return r.Value, true
		}
	}
	return v, known
}

func median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}
