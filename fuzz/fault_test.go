package fuzz

import (
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals/fuzz/faultfs"
)

var (
	faultFull  = flag.Bool("fault.full", false, "fail every operation in every way; else the rarer faults meet one in -fault.every operations")
	faultEvery = flag.Int("fault.every", 7, "of how many operations one meets the rarer faults")
	faultOnly  = flag.String("fault.only", "", "one case, workload/k/fault/mode, or the start of a name")
	faultTrace = flag.Bool("fault.trace", false, "print each case before it runs: the last one killed the process")
)

// faultWay is a way in which an operation fails.
type faultWay struct {
	name    string
	err     syscall.Errno
	hits    func(faultfs.Kind) bool // the operations that can fail so
	bytes   func(n int) int         // how much of a read or write of n bytes is done; nil: nothing
	failure faultfs.SyncFailure
	once    bool // it makes no sense for ever
	common  bool // it meets every operation even without -fault.full
}

func faultAnyKind(faultfs.Kind) bool { return true }

func faultKinds(list ...faultfs.Kind) func(faultfs.Kind) bool {
	return func(k faultfs.Kind) bool { return slices.Contains(list, k) }
}

// faultNeedsRoom are the operations that a full disk or a quota can fail.
var faultNeedsRoom = faultKinds(faultfs.Open, faultfs.Write, faultfs.Truncate, faultfs.Sync, faultfs.SyncData, faultfs.SyncDir,
	faultfs.Close, faultfs.Rename, faultfs.Link, faultfs.Mkdir)

func fewBytes(n int) func(int) int { return func(int) int { return n } }
func halfTheBytes(n int) int       { return n / 2 }
func mostBytes(n int) int          { return max(0, n-1) }

var faultWays = []faultWay{
	{name: "EIO", err: syscall.EIO, hits: faultAnyKind, common: true},
	{name: "ENOSPC", err: syscall.ENOSPC, hits: faultNeedsRoom, common: true},
	{name: "EIO@xfs", err: syscall.EIO, hits: faultKinds(faultfs.Sync, faultfs.SyncData), failure: faultfs.XFS},
	{name: "EIO@btrfs", err: syscall.EIO, hits: faultKinds(faultfs.Sync, faultfs.SyncData), failure: faultfs.Btrfs},
	{name: "EIO@ext4data", err: syscall.EIO, hits: faultKinds(faultfs.Sync, faultfs.SyncData), failure: faultfs.Ext4Data},
	{name: "EDQUOT", err: syscall.EDQUOT, hits: faultNeedsRoom},
	{name: "EROFS", err: syscall.EROFS, hits: faultKinds(faultfs.Open, faultfs.Write, faultfs.Truncate, faultfs.Sync, faultfs.SyncData,
		faultfs.SyncDir, faultfs.Rename, faultfs.Link, faultfs.Remove, faultfs.Mkdir)},
	{name: "EMFILE", err: syscall.EMFILE, hits: faultKinds(faultfs.Open, faultfs.ReadDir, faultfs.SyncDir)},
	{name: "EFBIG", err: syscall.EFBIG, hits: faultKinds(faultfs.Write, faultfs.Truncate)},
	{name: "EINTR", err: syscall.EINTR, hits: faultAnyKind, once: true},
	{name: "EIO-1", err: syscall.EIO, hits: faultKinds(faultfs.Read, faultfs.Write), bytes: fewBytes(1)},
	{name: "EIO-half", err: syscall.EIO, hits: faultKinds(faultfs.Read, faultfs.Write), bytes: halfTheBytes},
	{name: "EIO-most", err: syscall.EIO, hits: faultKinds(faultfs.Read, faultfs.Write), bytes: mostBytes},
	{name: "ENOSPC-1", err: syscall.ENOSPC, hits: faultKinds(faultfs.Write), bytes: fewBytes(1)},
	{name: "ENOSPC-half", err: syscall.ENOSPC, hits: faultKinds(faultfs.Write), bytes: halfTheBytes},
	{name: "ENOSPC-most", err: syscall.ENOSPC, hits: faultKinds(faultfs.Write), bytes: mostBytes},
}

// mode says how long a fault goes on.
type faultMode int

const (
	faultOnce faultMode = iota // operation k fails
	faultEver                  // and all that follow fail, those that the fault can hit
	faultKind                  // and all that follow of its kind
)

var faultModeNames = [...]string{"once", "ever", "kind"}

func (m faultMode) String() string { return faultModeNames[m] }

// faultCase is one run of a workload: the fault meets operation k of those that
// it can hit. With k = 0 nothing fails.
type faultCase struct {
	w     *faultWorkload
	fault *faultWay
	k     int
	mode  faultMode
}

func (c *faultCase) String() string {
	return fmt.Sprintf("%s/%d/%s/%v", c.w.name, c.k, c.fault.name, c.mode)
}

// wanted tells whether this run of the test has the case.
func (c *faultCase) wanted() bool {
	if *faultOnly != "" {
		name := c.String()
		return name == *faultOnly || strings.HasPrefix(name, strings.TrimSuffix(*faultOnly, "/")+"/")
	}
	if c.mode != faultOnce && c.fault.once {
		return false
	}
	if underRace && !*faultFull {
		return (c.k*7+int(c.mode)*3+len(c.fault.name))%61 == 0 // races hide in the code, not in the cases
	}
	return *faultFull || c.fault.common && c.mode != faultKind || (c.k+int(c.mode)*2+len(c.fault.name))%*faultEvery == 0
}

// TestFaultAnywhere fails every operation of every workload, once, and from then
// on for ever, in all the ways that operations fail, and holds what is left against
// what was acknowledged: as the process sees it, after a restart, and after a
// crash.
func TestFaultAnywhere(t *testing.T) {
	sweep := faultSweep{t: t, guard: watchFaultCases(t), table: faultTable{}}
	for i := range faultWorkloads {
		w := &faultWorkloads[i]
		if *faultOnly != "" && *faultOnly != w.name && !strings.HasPrefix(*faultOnly, w.name+"/") {
			continue
		}
		w.prepare(t, sweep.guard)
		for j := range faultWays {
			for m := faultOnce; m <= faultKind; m++ {
				sweep.all(w, &faultWays[j], m)
			}
		}
	}
	t.Log(sweep.table.String())
	require.NotZero(t, sweep.table.total(nil), "no case has this name")
}

// faultSweep runs cases.
type faultSweep struct {
	t        *testing.T
	guard    *faultGuard
	table    faultTable
	failures int
}

// all runs the cases of a workload, a fault and a mode: k grows until nothing is
// left to fail.
func (s *faultSweep) all(w *faultWorkload, f *faultWay, m faultMode) {
	n := 0 // operations that the fault can hit, as the run without one counts them
	for _, k := range w.base.kinds {
		if f.hits(k) {
			n++
		}
	}
	for k := 1; ; k++ {
		c := faultCase{w: w, fault: f, k: k, mode: m}
		switch {
		case k <= n && !c.wanted():
			continue
		case k > n && (*faultOnly != "" || !c.wanted()):
			return
		}
		r := runFaultCase(s.t, &c, s.guard)
		if fired, _ := r.inject.met(); fired == 0 && (w.ragged || k > n) {
			return
		}
		s.judge(r, n)
	}
}

// judge requires the fault of a case to have been met, once in that mode, and the
// case to have no problems.
func (s *faultSweep) judge(r *faultRun, n int) {
	fired, _ := r.inject.met()
	switch {
	case fired == 0:
		r.problem("the fault was never met, though the run without it has %d operations that it can hit", n)
	case r.c.mode == faultOnce && fired != 1:
		r.problem("the fault was met %d times", fired)
	}
	s.table.add(r.w.name, r.c.fault.name, r.c.mode)
	if r.report(s.t) {
		return
	}
	if s.failures++; s.failures > 20 {
		s.t.Fatal("too many failures")
	}
}

// runFaultCase runs one case in a bubble of its own, where time passes only when
// nothing else can happen, and where a goroutine that is left behind, or all of
// them waiting for each other, is found at once.
func runFaultCase(t *testing.T, c *faultCase, guard *faultGuard) (r *faultRun) {
	guard.begin(c.String())
	r = newFaultRun(c)
	defer func() {
		if p := recover(); p != nil {
			r.problem("goroutines are left, or wait for ever: %v", p)
		}
	}()
	synctest.Test(t, func(*testing.T) {
		defer func() {
			if p := recover(); p != nil {
				r.problem("panic: %v\n%s", p, debug.Stack())
			}
		}()
		r.run()
	})
	return r
}

// faultGuard ends the test, with all goroutines' stacks, when a case does not end.
type faultGuard struct {
	name  atomic.Pointer[string]
	count atomic.Int64
}

func watchFaultCases(t *testing.T) *faultGuard {
	g := &faultGuard{}
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	go func() {
		last, still := int64(-1), 0
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Second):
			}
			if n := g.count.Load(); n != last {
				last, still = n, 0
				continue
			}
			if still++; still == 180 {
				pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
				panic(fmt.Sprintf("this case does not end: -fault.only=%q", *g.name.Load()))
			}
		}
	}()
	return g
}

func (g *faultGuard) begin(name string) {
	g.name.Store(&name)
	g.count.Add(1)
	if *faultTrace {
		fmt.Fprintln(os.Stderr, name)
	}
}

// faultTable counts cases by workload, fault and mode.
type faultTable map[string]map[string][3]int

func (t faultTable) add(w, f string, m faultMode) {
	if t[w] == nil {
		t[w] = map[string][3]int{}
	}
	n := t[w][f]
	n[m]++
	t[w][f] = n
}

func (t faultTable) total(filter func(w, f string) bool) (n int) {
	for w, row := range t {
		for f, cell := range row {
			if filter == nil || filter(w, f) {
				n += cell[0] + cell[1] + cell[2]
			}
		}
	}
	return n
}

// String has a row for each workload and a column for each fault; a cell says how
// often the fault was met once, for ever, and for ever by one kind of operation.
func (t faultTable) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d cases: once+for ever+for ever by kind\n%-18s", t.total(nil), "")
	for i := range faultWays {
		fmt.Fprintf(&b, " %12s", faultWays[i].name)
	}
	b.WriteString("          all\n")
	for i := range faultWorkloads {
		w := faultWorkloads[i].name
		if t[w] == nil {
			continue
		}
		fmt.Fprintf(&b, "%-18s", w)
		for j := range faultWays {
			cell := t[w][faultWays[j].name]
			text := ""
			for m, n := range cell {
				if m > 0 {
					text += "+"
				}
				text += strconv.Itoa(n)
			}
			fmt.Fprintf(&b, " %12s", text)
		}
		fmt.Fprintf(&b, " %12d\n", t.total(func(name, _ string) bool { return name == w }))
	}
	return b.String()
}
