package fuzz

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/fuzz/faultfs"
)

// story is how a crash came about, told if its state is judged wrong.
type story struct {
	m       *machine
	op      faultfs.Op // the crash is before it; 0: nothing is under way
	effects []faultfs.Effect
	fates   fates
	killed  bool // only the process died, so that all effects are still there, and pending
	parent  *story
}

func (s *story) String() string {
	var b strings.Builder
	if s.parent != nil {
		fmt.Fprintf(&b, "%s\nthen, in what follows that crash:\n", s.parent)
	}
	journal := s.m.fs.Journal()
	if s.parent == nil && len(journal) > 100 {
		journal = journal[len(journal)-100:]
	}
	fmt.Fprintf(&b, "journal of %s:\n%s\n", s.m.name, strings.Join(journal, "\n"))
	what := "crash"
	if s.killed {
		what = "the process is killed"
	}
	if s.op.N > 0 {
		fmt.Fprintf(&b, "%s before operation %d, %v\n", what, s.op.N, s.op)
	} else {
		fmt.Fprintf(&b, "%s while nothing is under way\n", what)
	}
	for i, e := range s.effects {
		fmt.Fprintf(&b, "  %v: %v\n", s.fates[i], e)
	}
	return b.String()
}

// fail ends a judgement.
func (m *machine) fail(s *story, format string, args ...any) {
	m.Helper()
	m.Errorf("%s\n%s\n%s", fmt.Sprintf(format, args...), s, replay(m.name))
	panic(abort{})
}

// require fails the judgement unless ok.
func (m *machine) require(s *story, ok bool, format string, args ...any) {
	if !ok {
		m.Helper()
		m.fail(s, format, args...)
	}
}

// judge opens what a crash has left and holds it against the ledger.
func (m *machine) judge(fs *faultfs.FS, s *story) {
	m.sum.judged++
	crashed := fs.Clone() // as evidence: recovery changes fs
	spent := max(m.spent, greatestOnDisk(fs))
	before, read := m.readOnly(fs, s)
	if m.depth < deepest && m.rnd.IntN(*crashDeep) == 0 {
		m.sum.forks++
		m.fork(fs.Clone(), s, spent)
	}

	db, err := annals.Open(storeDir, m.options(fs, annals.SyncAlways))
	m.require(s, err == nil, "opening: %v", err)
	defer db.Close() // once more, or where a judgement fails: its goroutines must end in the test's bubble
	shown, _, err := view(db)
	m.require(s, err == nil, "reading: %v", err)
	i := m.prefix(fs, shown, s)
	m.require(s, !read || before == shown, "a reader beside the crash shows:\n%s\nbut after recovery there is:\n%s", short(before), short(shown))
	m.history(db, i, s)
	report := db.Recovery()
	m.quarantined(crashed, fs, report, s)
	m.sum.recovered(report, m.submitted()-i)
	m.require(s, db.Close() == nil, "closing: %v", err)

	next, err := nextSeq(fs)
	m.require(s, err == nil && next > spent, "the next record gets number %d, and %d was seen: %v", next, spent, err)
	m.reopened(fs, shown, s)
}

// readOnly looks at a crashed store as a reader and as verify do: neither needs a
// recovery, nor changes anything. ok is false if there is no store yet.
func (m *machine) readOnly(fs *faultfs.FS, s *story) (shown string, ok bool) {
	digest := fs.Digest("")
	report, err := annals.VerifyFS(context.Background(), fs, storeDir, nil)
	none := errors.Is(err, annals.ErrNotStore)
	m.require(s, err == nil || none, "verify: %v", err)
	m.require(s, report.OK(), "verify takes a crash for damage: %v", report.Problems)
	r, err := annals.OpenReader(storeDir, &annals.ReaderOptions{FS: fs, Now: m.options(fs, 0).Now})
	m.require(s, err == nil || none && errors.Is(err, annals.ErrNotStore), "opening a reader: %v", err)
	if err == nil {
		shown, _, err = view(r)
		m.require(s, err == nil, "reading: %v", err)
		m.require(s, r.Close() == nil, "closing the reader")
	}
	m.require(s, digest == fs.Digest(""), "a reader, or verify, has changed something")
	return shown, !none
}

// prefix requires the state to be that after some prefix of the commits that holds
// all that a crash must not take.
func (m *machine) prefix(fs *faultfs.FS, shown string, s *story) int {
	i, found := m.find(shown, m.floor, lastSeq(fs), m.now)
	m.require(s, found, "the state is not that after any allowed prefix of the commits; it is:\n%s\nand must be one from:\n%s\nto:\n%s",
		short(shown), short(m.states[m.floor].show(m.now)), short(m.states[m.submitted()].show(m.now)))
	return i
}

// history requires that the log says, from the first record that compaction has
// left in order, what was submitted up to state i.
func (m *machine) history(db *annals.Store, i int, s *story) {
	from := db.Stats().History
	want := m.records[:m.states[i].records]
	for len(want) > 0 && want[0].seq < from {
		want = want[1:]
	}
	if len(want) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // which passes at once if all wait for it
	defer cancel()
	for r, err := range db.Watch(ctx, want[0].seq) {
		m.require(s, err == nil, "watching from %d: %v", want[0].seq, err)
		differs := want[0].differs(r)
		m.require(s, differs == "", "the log holds another record: %s", differs)
		if want = want[1:]; len(want) == 0 {
			return
		}
	}
}

// quarantined requires that what was cut off is kept, and all of it.
func (m *machine) quarantined(crashed, fs *faultfs.FS, report annals.RecoveryReport, s *story) {
	for _, q := range report.Quarantined {
		old, err := crashed.ReadFile(fmt.Sprintf("%s/%020d.log", storeDir, q.Segment))
		m.require(s, err == nil, "%v", err)
		kept, err := fs.ReadFile(q.Path)
		m.require(s, err == nil, "%v", err)
		m.require(s, bytes.Equal(kept, old[q.Offset:]), "%s holds %d bytes, from offset %d on %d were cut off", q.Path, len(kept), q.Offset, len(old)-int(q.Offset))
	}
}

// reopened requires that a store that was recovered and closed is whole, and that
// opening it again changes nothing.
func (m *machine) reopened(fs *faultfs.FS, shown string, s *story) {
	report, err := annals.VerifyFS(context.Background(), fs, storeDir, nil)
	m.require(s, err == nil && report.OK() && report.Tail == nil && len(report.Leftover) == 0,
		"verify after recovery: %v, problems %v, tail %v, leftovers %v", err, report.Problems, report.Tail, report.Leftover)
	before := fs.Digest("LOCK")
	db, err := annals.Open(storeDir, m.options(fs, annals.SyncAlways))
	m.require(s, err == nil, "opening again: %v", err)
	defer db.Close()
	again, _, err := view(db)
	m.require(s, err == nil && again == shown, "opening again shows, %v:\n%s\ninstead of:\n%s", err, short(again), short(shown))
	m.require(s, db.Recovery().Clean, "a recovered store that was closed is recovered again")
	err = db.Close()
	m.require(s, err == nil, "closing again: %v", err)
	m.require(s, before == fs.Digest("LOCK"), "opening again has changed something")
	m.require(s, fs.OpenFiles() == 0, "%d files are left open", fs.OpenFiles())
}

// kill has only the process die: the next one sees all that this one has done, and
// what was pending still is. What the next one shows, or a reader beside it, must
// not depend on it.
func (m *machine) kill(op faultfs.Op) {
	m.sum.killed++
	fs := m.fs.Kill()
	s := &story{m: m, op: op, killed: true, parent: m.origin}
	m.fork(fs, s, m.spent)

	f := m.forked(m.fs.Kill(), s, m.spent)
	r, err := annals.OpenReader(storeDir, &annals.ReaderOptions{FS: f.fs, Now: m.options(f.fs, 0).Now})
	if errors.Is(err, annals.ErrNotStore) {
		return
	}
	m.require(s, err == nil, "opening a reader: %v", err)
	shown, _, err := view(r)
	m.require(s, err == nil, "reading: %v", err)
	m.require(s, r.Close() == nil, "closing the reader")
	var found bool
	f.floor, found = f.find(shown, m.floor, 0, m.now)
	m.require(s, found, "a reader shows what is no allowed prefix of the commits:\n%s", short(shown))
	f.spent = max(f.spent, m.states[f.floor].last)
	f.crash(faultfs.Op{})
}

// deepest is how deep crashes of recoveries of crashes go.
const deepest = 3

// forked returns a machine for what a crash, or a kill, has left.
func (m *machine) forked(fs *faultfs.FS, s *story, spent uint64) *machine {
	return &machine{T: m.T, ledger: m.ledger.fork(m.submitted(), m.states[m.submitted()].last), name: m.name, rnd: m.rnd, fs: fs, now: m.now, sum: m.sum,
		depth: m.depth + 1, origin: s, rich: m.rich, saves: m.saves, next: m.next, spent: spent, floor: m.floor, seen: map[seenState]bool{}}
}

// fork recovers a crashed store, being crashed in that too, and goes on with it:
// what the recovery has shown must stay, and what is written behind a tail that was
// cut off must not be cut off with it.
func (m *machine) fork(fs *faultfs.FS, s *story, spent uint64) {
	f := m.forked(fs, s, spent)
	spent = max(spent, greatestOnDisk(fs)) // once it is recovered: until then a crash may still take it
	fs.Hook(func(op faultfs.Op) {
		if op.Kind.Changes() {
			f.guard(func() { f.crash(op) })
		}
	})
	db, err := annals.Open(storeDir, f.options(fs, annals.SyncAlways))
	f.goOn()
	f.require(s, err == nil, "opening: %v", err)
	defer db.Close()
	shown, seq, err := view(db)
	f.require(s, err == nil, "reading: %v", err)
	i := f.prefix(fs, shown, s)
	f.next, err = nextSeq(fs)
	f.require(s, err == nil && f.next > spent && f.next > seq, "the next record gets number %d, and %d was seen, now readers see %d: %v", f.next, spent, seq, err)
	f.ledger, f.floor, f.db = m.ledger.fork(i, f.next-1), i, db
	f.atRest()
	for range 1 + f.rnd.IntN(2) {
		steps[forkSteps[f.rnd.IntN(len(forkSteps))]](f)
		f.goOn()
	}
	f.db = nil
	err = db.Close()
	f.goOn()
	f.require(s, err == nil, "closing: %v", err)
	f.atRest()
	fs.Hook(nil)
}

// goOn ends a fork in whose hook something was judged wrong. That may have been in
// any of its store's goroutines.
func (m *machine) goOn() {
	if m.broken {
		panic(abort{})
	}
}

// forkSteps are what is done to a store that was recovered.
var forkSteps = []string{"put", "delete", "batch", "big", "rotate", "compact", "append", "update", "checkpoint"}

var (
	lineNumbers = regexp.MustCompile(`^\{(?:"seq":(\d+))?,?(?:"dur":(\d+))?`)
	listedFiles = regexp.MustCompile(`"(?:open|sealed)":(\d+)`)
)

// greatestOnDisk returns the greatest number in any line with a right checksum in a
// segment that MANIFEST lists, its torn tail included, or in quarantine: no other
// record may get it, or one below it.
func greatestOnDisk(fs *faultfs.FS) (greatest uint64) {
	manifest, _ := fs.ReadFile(storeDir + "/MANIFEST")
	var names []string
	for _, m := range listedFiles.FindAllSubmatch(manifest, -1) {
		n, _ := strconv.Atoi(string(m[1]))
		names = append(names, fmt.Sprintf("%s/%020d.log", storeDir, n))
	}
	kept, _ := fs.ReadDir(storeDir + "/quarantine")
	for _, e := range kept {
		if strings.HasSuffix(e.Name(), ".tail") {
			names = append(names, storeDir+"/quarantine/"+e.Name())
		}
	}
	for _, name := range names {
		text, _ := fs.ReadFile(name)
		for line := range bytes.Lines(text) {
			object := len(line) - 10
			if object < 0 || string(line[object:]) != fmt.Sprintf(" %08x\n", crc32.ChecksumIEEE(line[:object])) {
				continue
			}
			for _, digits := range lineNumbers.FindSubmatch(line)[1:] {
				n, _ := strconv.ParseUint(string(digits), 10, 64)
				greatest = max(greatest, n)
			}
		}
	}
	return greatest
}

var longRun = regexp.MustCompile(`x{20,}`)

// short leaves out what only fills values.
func short(shown string) string { return longRun.ReplaceAllString(shown, "xx...") }

// sums count what a run has met, so that one that meets nothing fails.
type sums struct {
	made, judged, lazy, several          int
	torn512, torn4096, cut, filled, grew int
	unlinked, relinked                   int
	tails, dropped, orphans, indexed     int
	forks, killed, deep2, deep3          int
}

// columns are the counts that a run prints, none of which may be 0.
func (s *sums) columns() []column {
	return []column{
		{"states made", &s.made},
		{"distinct states, each opened and judged", &s.judged},
		{"with a tail cut", &s.tails},
		{"with a commit dropped", &s.dropped},
		{"with several commits in flight", &s.several},
		{"torn at 512 bytes", &s.torn512},
		{"torn at 4096 bytes", &s.torn4096},
		{"with a write cut short at a byte", &s.cut},
		{"with zeros, ones or noise for a write", &s.filled},
		{"with a new length without its bytes", &s.grew},
		{"with a pending removal on the disk", &s.unlinked},
		{"with a removal taken back", &s.relinked},
		{"with an orphan removed", &s.orphans},
		{"opened by what INDEX says", &s.indexed},
		{"under a lazy policy", &s.lazy},
		{"recoveries crashed", &s.forks},
		{"recoveries from a killed process crashed", &s.killed},
		{"in or after a recovery (depth 2)", &s.deep2},
		{"in or after the recovery of that (depth 3)", &s.deep3},
	}
}

type column struct {
	name string
	n    *int
}

// note counts what is special about a crash.
func (s *sums) note(m *machine, effects []faultfs.Effect, f fates) {
	add := func(n *int, met bool) {
		if met {
			*n++
		}
	}
	var removal [2]bool
	var cut, filled, grew bool
	torn, whole := map[int]bool{}, map[int]bool{}
	for i, e := range effects {
		switch {
		case path.Base(e.Op.Path) == "LOCK":
		case e.Op.Kind == faultfs.Remove:
			removal[min(f[i].Bytes, 1)] = true
		case e.Op.Kind == faultfs.Write && !e.Size:
			partly := f[i].Bytes > 0 && int64(f[i].Bytes) < e.Len
			cut = cut || partly
			filled = filled || f[i].Rest != faultfs.Old
			torn[e.Op.N] = torn[e.Op.N] || f[i] == faultfs.Gone
			whole[e.Op.N] = whole[e.Op.N] || f[i] == faultfs.Kept
		}
	}
	tears := false
	for op := range torn {
		tears = tears || torn[op] && whole[op]
	}
	grew = slices.ContainsFunc(effects, func(e faultfs.Effect) bool {
		return e.Size && e.Len > 0 && torn[e.Op.N] && f[slices.Index(effects, e)] == faultfs.Kept
	})
	add(&s.torn512, tears && m.fs.Tear == faultfs.Piece)
	add(&s.torn4096, tears && m.fs.Tear == faultfs.Page)
	add(&s.cut, cut)
	add(&s.filled, filled)
	add(&s.grew, grew)
	add(&s.relinked, removal[0])
	add(&s.unlinked, removal[1])
	add(&s.lazy, m.policy != annals.SyncAlways)
	add(&s.several, m.submitted()-m.floor > 1)
	add(&s.deep2, m.depth == 2)
	add(&s.deep3, m.depth == 3)
}

// recovered counts what a recovery has done.
func (s *sums) recovered(r annals.RecoveryReport, dropped int) {
	if len(r.Quarantined) > 0 {
		s.tails++
	}
	if len(r.Removed) > 0 {
		s.orphans++
	}
	if dropped > 0 {
		s.dropped++
	}
	if r.Indexed > 0 {
		s.indexed++
	}
}
