package system

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// calls are the system calls by which annals changes and reads files, as strace
// selects them. Families go by a regular expression: which of their members Go
// uses changes.
var calls = []string{"fdatasync", "fsync", "pwrite64", "pread64", "ftruncate", "openat", "close", "/^rename", "/^unlink"}

// injection makes strace interfere with a process.
//
// strace counts the calls of each thread by itself, and Go moves work between
// threads. So the Nth call is one call for each thread that gets so far: a case
// counts only if the trace shows that something was injected into a call on the
// store, and is known by what that was.
type injection struct {
	call string // one of calls
	what string // error=EIO, signal=KILL
	when string // 3: the third of each thread; 3+: that and all later ones
}

// command is strace up to the program that it runs. Without seccomp strace stops
// at every call, which takes several times longer; with it, strace 6.1 injects no
// signals.
func (i injection) command(trace string) []string {
	args := []string{"strace", "-f", "-ff", "-ttt", "-y", "-qq", "-e", "signal=none", "-o", trace, "-e", "trace=" + strings.Join(calls, ",")}
	if !strings.HasPrefix(i.what, "signal") {
		args = append(args, "--seccomp-bpf")
	}
	if i.call != "" {
		args = append(args, "-e", fmt.Sprintf("inject=%s:%s:when=%s", i.call, i.what, i.when))
	}
	return args
}

// traced is one call in a trace.
type traced struct {
	when     string
	call     string // fsync; rename and unlink for their families
	args     string
	role     string // what it was on: see roleOf
	result   string
	injected bool
	nth      int // of its thread's calls of this kind
}

func (c traced) site() string { return c.call + " of " + c.role }

var (
	tracedCall = regexp.MustCompile(`^(\d+\.\d+) (\w+)\((.*?)(?:\) += (.*)|<unfinished.*)$`)
	firstFile  = regexp.MustCompile(`^\d+<([^>]*)>`)
	quotedPath = regexp.MustCompile(`"([^"]*)"`)
)

// readTrace returns the calls on files of dir that all threads have made, in the
// order in which they were made, and how many calls of each kind one thread made
// at the most.
func readTrace(t testing.TB, trace, dir string) (list []traced, most map[string]int) {
	t.Helper()
	paths, err := filepath.Glob(trace + ".*")
	require.NoError(t, err)
	require.NotEmpty(t, paths, "strace has left no trace")
	most = map[string]int{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		thread := map[string]int{}
		for line := range strings.Lines(string(text)) {
			m := tracedCall.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
			if m == nil {
				continue
			}
			c := traced{when: m[1], call: family(m[2]), args: m[3], result: m[4], injected: strings.HasSuffix(m[4], "(INJECTED)")}
			thread[c.call]++
			c.nth = thread[c.call]
			most[c.call] = max(most[c.call], c.nth)
			if c.role = roleOf(c.call, m[3], dir); c.role != "" {
				list = append(list, c)
			}
		}
	}
	slices.SortStableFunc(list, func(a, b traced) int { return cmp.Compare(a.when, b.when) })
	return list, most
}

// family is the name of a call without what tells it from its relatives, and
// without what makes it a regular expression.
func family(call string) string {
	call = strings.Trim(call, "/^")
	for _, name := range []string{"rename", "unlink"} {
		if strings.HasPrefix(call, name) {
			return name
		}
	}
	return call
}

// roleOf names the kind of file in dir that a call was on, "" for one elsewhere.
func roleOf(call, args, dir string) string {
	path := ""
	switch call {
	case "openat", "rename", "unlink":
		if names := quotedPath.FindAllStringSubmatch(args, -1); len(names) > 0 {
			path = names[len(names)-1][1]
		}
	default:
		if m := firstFile.FindStringSubmatch(args); m != nil {
			path = m[1]
		}
	}
	rel, err := filepath.Rel(dir, path)
	switch base := filepath.Base(path); {
	case path == "" || err != nil || strings.HasPrefix(rel, ".."):
		return ""
	case strings.HasSuffix(base, ".log"):
		return "segment"
	case strings.HasSuffix(base, ".tmp"):
		return "temp"
	case base == "LOCK" || base == "MANIFEST":
		return base
	case strings.Contains(rel, "quarantine/"):
		return "quarantined"
	}
	return "directory"
}

// scenario is what annals does while it is interfered with.
type scenario struct {
	name string
	make func(t testing.TB, dir string, h *history) // what is there before
	load bool                                       // a load of a dozen commits; else
	args func(dir, dest string) []string            // a verb that changes nothing
	copy bool                                       // it makes a store in dest
}

var scenarios = []scenario{
	{name: "new", load: true},
	{name: "recovery", load: true, make: makeTorn},
	{name: "compact", make: makeDead, args: func(dir, _ string) []string { return []string{"compact", dir} }},
	{name: "backup", make: makeTorn, copy: true, args: func(dir, dest string) []string { return []string{"backup", dir, dest} }},
	{name: "repair", make: makeTorn, copy: true, args: func(dir, dest string) []string { return []string{"repair", dir, dest} }},
}

const small = "4KiB" // segments, so that a few commits fill several

// makeTorn makes a store whose writer was killed in the middle of a line.
func makeTorn(t testing.TB, dir string, h *history) {
	h.live = true
	l := load{dir: dir, binary: plain, args: []string{"--segment-size", small}, window: 8}
	l.onAck = func(acked int, p *os.Process) {
		if acked == 40 {
			p.Kill()
		}
	}
	o, _ := l.run(t, h)
	require.Negative(t, o.code)
	h.check(t, dir)
	manifest, err := os.ReadFile(filepath.Join(dir, "MANIFEST"))
	require.NoError(t, err)
	m := regexp.MustCompile(`"open":(\d+)`).FindSubmatch(manifest)
	require.NotNil(t, m, "%s", manifest)
	require.NotEqual(t, "0", string(m[1]), "it was closed")
	file, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("%020s.log", m[1])), os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	_, err = file.WriteString(`{"seq":12,"key":"to`)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	h.check(t, dir)
}

// makeDead makes a store that was closed, most of which is dead.
func makeDead(t testing.TB, dir string, h *history) {
	o, _ := load{dir: dir, binary: plain, args: []string{"--segment-size", small}, commits: 80}.run(t, h)
	require.Zero(t, o.code, o.stderr)
	h.complete(t, dir)
}

// prepared is a scenario ready to be run again and again.
type prepared struct {
	scenario
	dir  string
	h    *history
	most map[string]int // calls of a thread, when nothing interferes
	seen []traced       // those on files of the store or the copy
}

// again makes the scenario's start in a directory of its own.
func (p *prepared) again(t testing.TB) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "store")
	if p.make != nil {
		require.NoError(t, os.CopyFS(dir, os.DirFS(p.dir)))
	}
	return dir
}

func prepare(t *testing.T, h *history, s scenario) *prepared {
	p := &prepared{scenario: s, dir: filepath.Join(t.TempDir(), "store"), h: h}
	h.live = s.load
	if s.make != nil {
		s.make(t, p.dir, h)
	}
	r := p.run(t, h.clone(h.rnd), injection{})
	require.Zero(t, r.code, r.stderr)
	p.most, p.seen = r.most, r.trace
	return p
}

// result is what came of one run under strace.
type result struct {
	outcome
	dir, dest string
	trace     []traced
	most      map[string]int
	hit       []traced // what was interfered with, on files of the store or the copy
	finished  bool     // all that was asked for was done, as far as the verb said
}

// run runs the scenario once, under the injection.
func (p *prepared) run(t testing.TB, h *history, i injection) (r result) {
	t.Helper()
	r.dir = p.again(t)
	r.dest = filepath.Join(filepath.Dir(r.dir), "copy")
	trace := filepath.Join(filepath.Dir(r.dir), "trace")
	if p.load {
		l := load{dir: r.dir, args: []string{"--segment-size", small}, binary: plain, wrap: i.command(trace), commits: 24, window: 4}
		r.outcome, _ = l.run(t, h)
		r.finished = h.known == h.ops()
	} else {
		r.outcome = runAll(t, append(append(i.command(trace), plain), p.args(r.dir, r.dest)...), nil)
		r.finished = r.code == 0
	}
	r.trace, r.most = readTrace(t, trace, filepath.Dir(r.dir))
	for _, c := range r.trace {
		if c.injected || i.what == "signal=KILL" && r.signal != 0 && c.call == family(i.call) && (c.result == "" || c.result == "?") {
			r.hit = append(r.hit, c)
		}
	}
	return r
}

// planned is one case.
type planned struct {
	p *prepared
	i injection
}

// plan spreads injections of the given kinds over the calls of each scenario. With
// -system.sites=0 it is each kind at each call.
func plan(rnd *rand.Rand, all []*prepared, calls []string, kinds []injection) (list []planned) {
	for _, p := range all {
		for _, call := range calls {
			for n, at := range sample(rnd, *sites, p.most[family(call)]) {
				for k, kind := range kinds {
					if *sites == 0 || k == (n+len(list))%len(kinds) {
						list = append(list, planned{p, injection{call, kind.what, strconv.Itoa(at) + kind.when}})
					}
				}
			}
		}
	}
	return list
}

// interference is the cases of one test.
type interference struct {
	calls   []string
	kinds   []injection
	mustHit []string // sites
	judge   func(t testing.TB, p *prepared, r result, i injection, h *history)

	mu    sync.Mutex
	hits  map[string]int // by site
	cases int            // in which there was one
}

// run runs all cases, has judge look at each in which something was hit, and goes
// on until each site that must be hit was.
func (x *interference) run(t *testing.T) {
	needs(t, "strace")
	x.hits = map[string]int{}
	rnd := seeded(t)
	var all []*prepared
	for _, s := range scenarios {
		all = append(all, prepare(t, newHistory(rnd), s))
	}
	list := plan(rnd, all, x.calls, x.kinds)
	inParallel(t, rnd, len(list), func(t *testing.T, n int, rnd *rand.Rand) { x.try(t, list[n], rnd) })
	for tries := 0; len(x.missing()) > 0 && tries < 50 && !t.Failed(); tries++ {
		for _, site := range x.missing() {
			aimed := x.aimed(all, site)
			require.NotEmpty(t, aimed, "no scenario has a call like %q", site)
			x.try(t, aimed[rnd.IntN(len(aimed))], rnd)
		}
	}
	var table strings.Builder
	for _, site := range slices.Sorted(maps.Keys(x.hits)) {
		fmt.Fprintf(&table, "\n%6d %s", x.hits[site], site)
	}
	t.Logf("%d cases in %d runs; what was hit:%s", x.cases, len(list), &table)
	require.Empty(t, x.missing(), "never hit")
}

// aimed returns cases that hit a site, if work falls to threads as it did when nothing
// interfered. Any call of that kind would do, but those on some files are rare: of a
// hundred opened at random none may be a temporary one.
func (x *interference) aimed(all []*prepared, site string) (list []planned) {
	for _, p := range all {
		for _, c := range p.seen {
			if c.site() != site {
				continue
			}
			call := x.calls[slices.IndexFunc(x.calls, func(call string) bool { return family(call) == c.call })]
			for _, kind := range x.kinds {
				list = append(list, planned{p, injection{call, kind.what, strconv.Itoa(c.nth) + kind.when}})
			}
		}
	}
	return list
}

// missing returns the sites that must be hit and were not.
func (x *interference) missing() (sites []string) {
	for _, site := range x.mustHit {
		if x.hits[site] == 0 {
			sites = append(sites, site)
		}
	}
	return sites
}

// try runs one case.
func (x *interference) try(t *testing.T, c planned, rnd *rand.Rand) {
	h := c.p.h.clone(rnd)
	r := c.p.run(t, h, c.i)
	defer func() {
		if t.Failed() {
			t.Logf("scenario %s, inject %+v, hit %+v, status %d, stderr %q", c.p.name, c.i, r.hit, r.code, r.stderr)
		}
	}()
	if len(r.hit) > 0 { // else it was a call of the runtime, or one that no thread got to
		x.mu.Lock()
		x.cases++
		for _, c := range r.hit {
			x.hits[c.site()]++
		}
		x.mu.Unlock()
		x.judge(t, c.p, r, c.i, h)
	}
	require.NoError(t, os.RemoveAll(filepath.Dir(r.dir)))
}

// vital are the calls whose failure may never be passed over: what was to be
// synced may look as it should and be lost with the next power cut. Whether any
// other failure could be is seen by what there is afterwards.
var vital = []string{"fdatasync of segment", "fsync of segment", "fsync of temp", "fsync of directory", "close of temp"}

// Every system call that fails makes annals say so and end with status 2, or
// changes nothing. Nothing that was acknowledged is lost, after a sync that failed
// no record is written, and the next run goes on.
func TestFailingSystemCalls(t *testing.T) {
	kinds := []injection{{what: "error=EIO"}, {what: "error=ENOSPC"}, {what: "error=EIO", when: "+"}}
	mustHit := []string{
		"fdatasync of segment", "fsync of segment", "fsync of temp", "fsync of directory", "pwrite64 of segment",
		"pwrite64 of temp", "pwrite64 of LOCK", "rename of MANIFEST", "unlink of segment", "openat of segment",
		"openat of temp", "openat of directory", "ftruncate of segment", "close of temp", "close of segment", "pread64 of segment",
	}
	x := interference{calls: calls, kinds: kinds, mustHit: mustHit}
	x.judge = func(t testing.TB, p *prepared, r result, i injection, h *history) {
		require.Zero(t, r.signal)
		if p.name == "repair" && r.code == 1 {
			p.judgeLosses(t, r, h)
			return
		}
		if r.code != 0 {
			why := map[string]string{"error=EIO": "input/output error", "error=ENOSPC": "no space left on device"}
			r.failed(t, why[i.what])
		} else {
			require.True(t, r.finished, "it ended well, and not all is acknowledged")
			for _, c := range r.hit {
				require.NotContains(t, vital, c.site(), "the failure was passed over")
			}
		}
		nothingAfterAFailedSync(t, r)
		p.judge(t, r, h)
	}
	x.run(t)
}

// judgeLosses is for a repair that could not read everything: it saved what it could,
// and says what is lost and why.
func (p *prepared) judgeLosses(t testing.TB, r result, h *history) {
	for _, c := range r.hit {
		require.Equal(t, "pread64 of segment", c.site(), "that is no reason to lose a record")
	}
	require.Regexp(t, `(?m)^lost: .*input/output error`, r.stdout)
	h.complete(t, r.dir)
	require.Contains(t, must(t, "verify", r.dest), "no damage")
}

// A system call that a signal interrupts is made again, and nobody notices.
func TestInterruptedSystemCalls(t *testing.T) {
	x := interference{kinds: []injection{{what: "error=EINTR"}}, mustHit: []string{"fdatasync of segment", "fsync of directory"}}
	x.calls = slices.DeleteFunc(slices.Clone(calls), func(c string) bool { return c == "close" }) // which is never repeated
	x.judge = func(t testing.TB, p *prepared, r result, _ injection, h *history) {
		require.Zero(t, r.code, r.stderr)
		require.True(t, r.finished)
		p.judge(t, r, h)
	}
	x.run(t)
}

// annals killed at the very system call, whichever it is.
func TestKilledAtSystemCalls(t *testing.T) {
	x := interference{kinds: []injection{{what: "signal=KILL"}}}
	x.calls = slices.DeleteFunc(slices.Clone(calls), func(c string) bool { return c == "pread64" })
	x.mustHit = []string{
		"fdatasync of segment", "fsync of segment", "fsync of temp", "fsync of directory", "pwrite64 of segment",
		"pwrite64 of temp", "rename of MANIFEST", "unlink of segment", "openat of segment", "ftruncate of segment",
	}
	x.judge = func(t testing.TB, p *prepared, r result, _ injection, h *history) { p.judge(t, r, h) }
	x.run(t)
}

// nothingAfterAFailedSync makes sure that no record was written once a sync had
// failed on which records depend. Where it was not the log that syncs, which does so by
// fdatasync, one write may have been on its way in another thread.
func nothingAfterAFailedSync(t testing.TB, r result) {
	t.Helper()
	failed, may := false, 0
	for _, c := range r.trace {
		switch {
		case c.injected && c.call == "fdatasync":
			failed, may = true, 0
		case c.injected && c.call == "fsync" && !failed:
			failed, may = true, 1
		case failed && c.call == "pwrite64" && c.role == "segment":
			may--
			require.GreaterOrEqual(t, may, 0, "a segment was written after a sync had failed: %+v", c)
		}
	}
}

// judge holds what is there after a run against what must be.
func (p *prepared) judge(t testing.TB, r result, h *history) {
	t.Helper()
	if p.load {
		h.check(t, r.dir)
	} else {
		h.complete(t, r.dir)
	}
	if _, err := os.Stat(filepath.Join(r.dest, "MANIFEST")); p.copy && (err == nil || r.code == 0) {
		require.Contains(t, must(t, "verify", r.dest), "no damage")
		require.Equal(t, h.state.sum, read(t, r.dest).sum, "the copy is not whole")
	}
	h.goesOn(t, r.dir)
}

// Where no record can be synced none is acknowledged, whatever the policy.
func TestNothingIsAcknowledgedWithoutItsSync(t *testing.T) {
	needs(t, "strace")
	rnd := seeded(t)
	for _, policy := range []string{"always", "2ms", "never"} {
		t.Run(policy, func(t *testing.T) {
			dir, h := filepath.Join(t.TempDir(), "store"), newHistory(rnd)
			trace := filepath.Join(t.TempDir(), "trace")
			l := load{dir: dir, args: []string{"--sync", policy, "--segment-size", small}, binary: plain, small: true, commits: 100}
			l.wrap = injection{"fdatasync", "error=EIO", "1+"}.command(trace)
			o, acked := l.run(t, h)
			o.failed(t, "input/output error")
			require.Zero(t, acked, "an op was acknowledged, and no sync has succeeded")
			h.goesOn(t, dir)
		})
	}
}
