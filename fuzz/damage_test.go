package fuzz

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/fuzz/faultfs"
)

var (
	damageSeed   = flag.Uint64("damage.seed", 1, "seed of the random damage")
	damageRandom = flag.Int("damage.random", 500, "cases of random damage of several bytes, in each store")
	damageIndex  = flag.Int("damage.index", 61, "take only one of so many cases of TestDamageBesideIndex")
	damageEvery  = flag.Int("damage.every", 1, "take only one of so many cases of TestDamage")
	damageOnly   = flag.String("damage.only", "", "the one case of TestDamage to run, by its name")
)

// maxDamageHeap is what one case may allocate, all its opens and reads together.
const maxDamageHeap = 16 << 20

// damaged is one way in which a store is damaged.
type damaged struct {
	name  string
	files storeImage // what changed; nil for a file that is gone
	exact bool       // the error must name the very line of the first changed byte
	whole bool       // a file was taken for another: what does not fit may be seen elsewhere
	fixed bool       // Repair is tried too
	moved bool       // lines are not where the reader was told: only the file can be blamed
}

// damageSweep damages one subject in all ways.
type damageSweep struct {
	t      *testing.T
	s      *damageSubject
	damage damaged
	sums   map[string]*damageSums
	seen   map[string]bool // files of which every byte was damaged
}

// damageSums count outcomes, so that a damageSweep that never met one of them fails.
type damageSums struct{ cases, refused, failedRead, same, cut, repaired int }

// TestDamage damages small stores in every way that it can think of, one at a
// time. What FORMAT.md says of the damaged files, by a reader that shares no code
// with the store, is what Open, OpenReader and Verify must do: refuse the store,
// name file and line, and change nothing; or show exactly what was there. Only
// of a store that was not closed may the end of the open segment go, if nothing
// behind proves that it was durable; and it must be in quarantine.
func TestDamage(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // there is little to keep and much to throw away
	all := damageSubjects(t)
	seen := map[string]bool{}
	for i := range all {
		sw := damageSweep{t: t, s: &all[i], sums: map[string]*damageSums{}, seen: seen}
		sw.run(all)
		sw.log()
	}
}

// few are the kinds of damage of which so few cases exist that a sample takes them
// all.
var few = []string{"lines", "replace", "gone", "empty"}

func (sw *damageSweep) run(all []damageSubject) {
	n, every := 0, *damageEvery
	if underRace {
		every *= 41
	}
	try := func(kind string, d damaged) {
		d.name = path.Join(sw.s.name, kind, d.name)
		n++
		switch {
		case *damageOnly != "" && *damageOnly != d.name, *damageOnly == "" && n%every != 0 && (underRace || !slices.Contains(few, kind)):
			return
		}
		sw.try(kind, d)
	}
	for _, name := range slices.Sorted(maps.Keys(sw.s.image)) {
		raw := sw.s.image[name]
		if !sw.seen[string(raw)] { // else it was damaged as a file of another subject
			sw.seen[string(raw)] = true
			edits(name, raw, try)
		}
		lineEdits(name, raw, try)
		try("gone", damaged{name: name, files: storeImage{name: nil}, whole: true, fixed: true})
		try("empty", damaged{name: name, files: storeImage{name: {}}, fixed: true})
	}
	sw.foreignLines(try)
	sw.replacements(all, try)
	sw.random(try)
}

// places are the offsets at which a file is damaged: all of them, but for padding
// of which a few will do.
func places(raw []byte) (at []int) {
	content := len(bytes.TrimRight(raw, "\n"))
	for i := 0; i < len(raw); i++ {
		at = append(at, i)
		if i > content+40 && len(raw)-i > 40 {
			i += 4000
		}
	}
	return at
}

// edits changes bytes, cuts, appends, and moves sectors.
func edits(name string, raw []byte, try func(string, damaged)) {
	at := places(raw)
	edit := func(kind, how string, now []byte, exact, fixed bool) {
		if !bytes.Equal(now, raw) {
			try(kind, damaged{name: name + "/" + how, files: storeImage{name: now}, exact: exact, fixed: fixed})
		}
	}
	log := name == "MANIFEST" || path.Ext(name) == ".log"
	for _, i := range at {
		for bit := range 8 {
			if !log && bit != i%8 {
				continue // a file that nothing is read from
			}
			now := bytes.Clone(raw)
			now[i] ^= 1 << bit
			edit("flip", fmt.Sprintf("%d.%d", i, bit), now, true, bit == i%8)
		}
		for _, c := range []byte("\x00\xff\n ") {
			if !log && c != 0 {
				continue
			}
			now := bytes.Clone(raw)
			now[i] = c
			edit("set", fmt.Sprintf("%d=%d", i, c), now, true, false)
		}
		edit("cut", fmt.Sprint(i), raw[:i:i], false, i%8 == 0)
	}
	for how, tail := range map[string]string{"x": "x", "newline": "\n", "NUL": "\x00", "NULs": strings.Repeat("\x00", 700), "newlines": strings.Repeat("\n", 700),
		"half a line": `{"seq":99,"key":"k","val"`, "another format": crcLine(`{"annals":2}`), "itself": string(raw)} {
		edit("append", how, append(bytes.Clone(raw), tail...), false, true)
	}
	const sector = 512
	for i := 0; i < len(raw); i += sector {
		if i > 4*sector && i+sector < len(raw) {
			continue // padding
		}
		now := bytes.Clone(raw)
		clear(now[i:min(i+sector, len(raw))])
		edit("sector", fmt.Sprint(i, " zeroed"), now, false, true)
		for j := i + sector; j < len(raw); j += sector {
			now := bytes.Clone(raw)
			a, b := now[i:min(i+sector, j)], now[j:min(j+sector, len(raw))]
			n := min(len(a), len(b))
			for k := range n {
				a[k], b[k] = b[k], a[k]
			}
			edit("sector", fmt.Sprint(i, " and ", j), now, false, true)
		}
	}
}

// lineEdits moves, doubles and deletes whole lines, whose own checksums stay
// right.
func lineEdits(name string, raw []byte, try func(string, damaged)) {
	lines := bytes.SplitAfter(bytes.TrimRight(raw, "\n"), []byte("\n"))
	rest := raw[len(bytes.TrimRight(raw, "\n")):]
	edit := func(how string, now [][]byte) {
		text := slices.Concat(bytes.Join(now, nil), rest)
		if !bytes.Equal(text, raw) {
			try("lines", damaged{name: name + "/" + how, files: storeImage{name: text}, fixed: true})
		}
	}
	last := len(lines) - 1
	if len(rest) > 0 { // so that the last line is as whole as the others
		lines[last] = append(bytes.Clone(lines[last]), '\n')
		rest = rest[1:]
	}
	for i := range lines {
		edit(fmt.Sprint(i, " deleted"), slices.Delete(slices.Clone(lines), i, i+1))
		edit(fmt.Sprint(i, " doubled"), slices.Insert(slices.Clone(lines), i, lines[i]))
		edit(fmt.Sprint(i, " again at the end"), append(slices.Clone(lines), lines[i]))
		for j := range i {
			now := slices.Clone(lines)
			now[i], now[j] = now[j], now[i]
			edit(fmt.Sprint(j, " and ", i), now)
		}
	}
}

// foreignLines puts the first line, or the last, of another segment in the place of
// a segment's own.
func (sw *damageSweep) foreignLines(try func(string, damaged)) {
	for _, a := range sw.s.naive.footers {
		for _, b := range sw.s.naive.footers {
			name, raw, other := naiveName(a.Sealed), sw.s.image[naiveName(a.Sealed)], sw.s.image[naiveName(b.Sealed)]
			if a.Sealed == b.Sealed {
				continue
			}
			lines, others := naiveLines(raw), naiveLines(other)
			footer := slices.Concat(raw[:lines[len(lines)-1].offset], other[others[len(others)-1].offset:])
			header := slices.Concat(other[:others[0].end], raw[lines[0].end:])
			try("lines", damaged{name: fmt.Sprint(name, "/footer of ", b.Sealed), files: storeImage{name: footer}, fixed: true})
			try("lines", damaged{name: fmt.Sprint(name, "/header of ", b.Sealed), files: storeImage{name: header}, fixed: true})
		}
	}
}

// replacements put another file in the place of one: an older state of it, or
// another of this store or of any other.
func (sw *damageSweep) replacements(all []damageSubject, try func(string, damaged)) {
	for name, raw := range sw.s.image {
		seen := map[string]bool{string(raw): true}
		replace := func(how string, now []byte) {
			if now != nil && !seen[string(now)] {
				seen[string(now)] = true
				try("replace", damaged{name: name + "/" + how, files: storeImage{name: now}, whole: true})
			}
		}
		for i, past := range sw.s.past {
			replace(fmt.Sprint("past ", i), past[name])
		}
		for i, twin := range sw.s.twins {
			replace(fmt.Sprint("twin ", i), twin[name])
		}
		for i := range all {
			for other, now := range all[i].image {
				replace(path.Join(all[i].name, other), now)
			}
		}
	}
}

// random overwrites some bytes in some places of one or two files.
func (sw *damageSweep) random(try func(string, damaged)) {
	names := slices.Sorted(maps.Keys(sw.s.image))
	for n := range *damageRandom {
		r := rand.New(rand.NewPCG(*damageSeed, uint64(n)))
		d := damaged{name: fmt.Sprint(n), files: storeImage{}, whole: true, moved: true, fixed: n%16 == 0}
		for range 1 + r.IntN(2) {
			name := names[r.IntN(len(names))]
			now, ok := d.files[name]
			if !ok {
				now = bytes.Clone(sw.s.image[name])
			}
			for range 1 + r.IntN(4) {
				now = randomDamage(r, now)
			}
			d.files[name] = now
		}
		try("random", d)
	}
}

func randomDamage(r *rand.Rand, raw []byte) []byte {
	if len(raw) == 0 {
		return []byte{byte(r.Uint32())}
	}
	from := r.IntN(len(raw))
	if r.IntN(2) == 0 {
		from = r.IntN(len(bytes.TrimRight(raw, "\n")) + 1)
	}
	to := min(from+1+r.IntN(1<<r.IntN(10)), len(raw))
	switch r.IntN(6) {
	case 0:
		clear(raw[from:to])
	case 1: // what lies elsewhere
		copy(raw[from:to], raw[r.IntN(len(raw)):])
	case 2: // bytes are missing
		return slices.Delete(raw, from, to)
	case 3: // bytes are too many
		return slices.Insert(raw, from, bytes.Clone(raw[from:to])...)
	case 4:
		return raw[:from]
	default:
		for i := from; i < to; i++ {
			raw[i] = byte(r.Uint32())
		}
	}
	return raw
}

func (sw *damageSweep) fail(format string, args ...any) {
	sw.t.Helper()
	flags := ""
	if strings.Contains(sw.damage.name, "/random/") {
		flags = fmt.Sprintf(" -damage.seed=%d -damage.random=%d", *damageSeed, *damageRandom)
	}
	sw.t.Fatalf("%s: %s\nreplay: go test ./fuzz -run '^%s$' '-damage.only=%s'%s", sw.damage.name, fmt.Sprintf(format, args...), sw.t.Name(), sw.damage.name, flags)
}

// require fails the case unless ok.
func (sw *damageSweep) require(ok bool, format string, args ...any) {
	if !ok {
		sw.t.Helper()
		sw.fail(format, args...)
	}
}

func (sw *damageSweep) noError(err error, what string) {
	sw.t.Helper()
	sw.require(err == nil, "%s: %v", what, err)
}

// try damages the store and looks what all readers say.
func (sw *damageSweep) try(kind string, d damaged) {
	sw.damage = d
	defer func() {
		if r := recover(); r != nil {
			sw.t.Errorf("%s: replay with '-damage.only=%s'", d.name, d.name)
			panic(r)
		}
	}()
	if sw.sums[kind] == nil {
		sw.sums[kind] = &damageSums{}
	}
	m := maps.Clone(sw.s.image)
	for name, raw := range d.files {
		if m[name] = raw; raw == nil {
			delete(m, name)
		}
	}
	want := naiveRead(m)
	heap := heapAllocs()
	sw.judge(m, &want, sw.sums[kind])
	if d.fixed {
		sw.repair(m, &want, sw.sums[kind])
	}
	if n := heapAllocs() - heap; n > maxDamageHeap {
		sw.fail("%d bytes were allocated", n)
	}
}

func heapAllocs() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// judge holds Verify, OpenReader and Open against what must come of it.
func (sw *damageSweep) judge(m storeImage, want *naiveStore, sums *damageSums) {
	fs := m.fs(sw.t)
	before, beforeLock := fs.Digest(""), fs.Digest("LOCK")

	report, err := annals.VerifyFS(context.Background(), fs, storeDir, nil)
	sw.verified(report, err, want)
	sw.require(fs.Digest("") == before, "Verify has changed something")

	var seen, opened storeState
	if sums.cases%4 == 0 || want.why == "" { // what refuses a writer refuses a reader: a sample will do
		reader, err := annals.OpenReader(storeDir, &annals.ReaderOptions{FS: fs, Now: damageOptions(nil).Now})
		sw.refused("OpenReader", err, want)
		if err == nil {
			seen = readStore(reader, sw.s.want)
			sw.noError(reader.Close(), "closing the reader")
		}
		sw.require(fs.Digest("") == before, "a reader has changed something")
	}

	db, err := annals.Open(storeDir, damageOptions(fs))
	sw.refused("Open", err, want)
	sums.cases++
	if err != nil {
		sw.require(fs.Digest("LOCK") == beforeLock, "Open refused the store and has changed something")
		sw.require(fs.OpenFiles() == 0, "files are left open")
		sums.refused++
		return
	}
	opened = readStore(db, sw.s.want)
	sw.accepted(opened, want, sums)
	sw.recovered(db, m, want)
	sw.sameReading(seen, opened)
	sw.goesOn(db, fs, opened, want)
}

// refused requires an error exactly where FORMAT.md demands one, and of a
// CorruptError that it tells where.
func (sw *damageSweep) refused(who string, err error, want *naiveStore) {
	sw.t.Helper()
	damage := (*annals.CorruptError)(nil)
	switch {
	case want.newer && want.why == "" && len(want.broken) == 0:
		sw.require(errors.Is(err, annals.ErrNewerFormat), "%s: want ErrNewerFormat, got %v", who, err)
	case want.newer:
		sw.require(errors.Is(err, annals.ErrNewerFormat) || errors.Is(err, annals.ErrCorrupt), "%s: got %v", who, err)
	case want.why != "":
		sw.require(errors.As(err, &damage), "%s: %s is damaged (%s), got %v", who, want.file, want.why, err)
		sw.blame(who, damage)
	default:
		sw.require(err == nil, "%s: nothing is damaged, got %v", who, err)
	}
}

// blame requires that an error names the damaged file and, in it, the line of the
// first changed byte or one before.
func (sw *damageSweep) blame(who string, e *annals.CorruptError) {
	sw.t.Helper()
	name, err := filepath.Rel(storeDir, filepath.FromSlash(e.Path))
	sw.noError(err, who)
	name = filepath.ToSlash(name)
	now, changed := sw.damage.files[name]
	if sw.damage.whole && !changed {
		return
	}
	sw.require(changed, "%s blames %s, which is whole: %v", who, name, e)
	if sw.damage.moved {
		return
	}
	was := sw.s.image[name]
	first := 0
	for first < min(len(was), len(now)) && was[first] == now[first] {
		first++
	}
	end := len(now)
	for i := len(was); end > first && i > first && was[i-1] == now[end-1]; i-- {
		end--
	}
	begin := bytes.LastIndexByte(was[:first], '\n') + 1
	if !sw.damage.exact {
		end = noticed(now, end, e)
		sw.require(e.Offset <= int64(end), "%s says offset %d, the damage is at %d to %d: %v", who, e.Offset, first, end, e)
		return
	}
	split := now[first] == '\n' && e.Offset == int64(first)+1 // a newline has made two lines of it
	sw.require(e.Offset == int64(begin) || split, "%s says offset %d, the damaged line begins at %d: %v", who, e.Offset, begin, e)
	for _, l := range naiveLines(was) {
		if l.kind == "record" && l.offset == begin && e.FirstSeq != 0 {
			sw.require(e.FirstSeq <= l.Seq && l.Seq <= e.LastSeq, "%s does not say that record %d is lost: %v", who, l.Seq, e)
		}
		if l.kind == "record" && l.offset == begin && naiveLines(was)[0].Order == "" {
			sw.require(e.FirstSeq != 0, "%s does not say which records are lost: %v", who, e)
		}
	}
}

// noticed is where a file shows at the latest that a line before offset end is
// missing: at the next record or, if that was a mark, at the footer.
func noticed(raw []byte, end int, e *annals.CorruptError) int {
	next := -1
	for _, l := range naiveLines(raw) {
		if l.offset >= end && l.kind == "record" && next < 0 {
			next = l.offset
		}
		if l.kind == "footer" && e.Offset == int64(l.offset) || l.offset >= end && next < 0 && l.kind != "mark" {
			return l.offset
		}
	}
	return max(next, end)
}

// verified requires that Verify finds what the others stumble over.
func (sw *damageSweep) verified(report annals.Report, err error, want *naiveStore) {
	if want.newer {
		sw.require(errors.Is(err, annals.ErrNewerFormat) || !report.OK(), "Verify: want ErrNewerFormat, got %v", err)
		return
	}
	sw.noError(err, "Verify")
	if want.why == "" && len(want.broken) == 0 {
		sw.require(report.OK(), "Verify: nothing is damaged, got %v", report.Problems)
		sw.require((report.Tail != nil) == want.open.tail, "Verify reports tail %v, want %v", report.Tail, want.open.tail)
		if report.Tail != nil {
			sw.require(report.Tail.Offset == int64(want.open.end), "Verify reports tail %+v, it begins at %d", *report.Tail, want.open.end)
		}
		return
	}
	sw.require(!report.OK(), "Verify finds nothing; %s is damaged: %s, %v", want.file, want.why, want.broken)
	sw.blame("Verify", report.Problems[0])
}

// accepted requires that what is shown is what is there, and that it is what was
// there before the damage: all of it, or on a store that was not closed a prefix.
func (sw *damageSweep) accepted(got storeState, want *naiveStore, sums *damageSums) {
	now := damageNow.UnixMicro()
	if len(want.broken) > 0 {
		sw.partly(got, want)
		sums.failedRead++
		return
	}
	expect := naiveState(want.records, want.manifest.History, now)
	sw.require(len(got.errs) == 0, "reading: %v", got.errs)
	sw.require(sameState(got, expect), "the state is\n%v\nand must be\n%v", got, expect)
	was := sw.s.naive.records
	if sameKeysAndSamples(got, sw.s.want) {
		sums.same++
		return
	}
	sums.cut++
	sw.require(!sw.s.clean, "a store that was closed has lost something:\n%v\nwas\n%v", got, sw.s.want)
	n := len(want.records)
	sw.require(n < len(was) && sw.openSegmentHolds(was[n].Seq), "a sealed record is gone; the state is\n%v\nand was\n%v", got, sw.s.want)
	for i, l := range want.records {
		sw.require(l.Seq == was[i].Seq && l.name == was[i].name && l.value == was[i].value, "record %d has changed", l.Seq)
	}
}

func (sw *damageSweep) openSegmentHolds(seq uint64) bool { return seq >= sw.s.naive.open.first }

// partly requires that damage in a segment of samples costs only those that are
// in it, and that every read that needs them says so.
func (sw *damageSweep) partly(got storeState, want *naiveStore) {
	all := sw.s.want
	sw.require(reflect.DeepEqual(got.keys, all.keys), "keys are\n%v\nand must be\n%v", got.keys, all.keys)
	sw.require(slices.Equal(got.watched, all.watched), "watch shows\n%v\nand must show\n%v", got.watched, all.watched)
	missing := false
	for name, list := range all.samples {
		i := 0
		for _, s := range got.samples[name] {
			for i < len(list) && list[i] != s {
				i++
				missing = true
			}
			sw.require(i < len(list), "series %q shows %s, which it never held, or not in this order", name, s)
			i++
		}
		missing = missing || i < len(list)
	}
	sw.require(len(got.errs) > 1 || !missing, "samples are missing and nobody says so:\n%v\nwas\n%v", got.samples, all.samples)
	for _, err := range got.errs {
		damage := (*annals.CorruptError)(nil)
		sw.require(errors.As(err, &damage), "reading: %v", err)
		sw.blame("reading", damage)
	}
}

func sameState(a, b storeState) bool {
	return sameKeysAndSamples(a, b) && slices.Equal(a.watched, b.watched)
}

func sameKeysAndSamples(a, b storeState) bool {
	return maps.Equal(a.keys, b.keys) && maps.EqualFunc(a.samples, b.samples, slices.Equal[[]string])
}

// sameReading requires that a reader shows what the writer does.
func (sw *damageSweep) sameReading(reader, writer storeState) {
	sw.require(sameState(reader, writer) && len(reader.errs) == len(writer.errs), "a reader sees\n%v\nand the writer\n%v", reader, writer)
}

// recovered requires that what was cut off is in quarantine, byte for byte.
func (sw *damageSweep) recovered(db *annals.Store, m storeImage, want *naiveStore) {
	r := db.Recovery()
	sw.require(r.Clean == (want.manifest.Open == 0), "recovery says clean=%v", r.Clean)
	if want.manifest.Open == 0 || !want.open.tail {
		sw.require(len(r.Quarantined) == 0, "recovery reports %v", r.Quarantined)
		return
	}
	sw.require(len(r.Quarantined) == 1, "a tail was cut, recovery reports %v", r.Quarantined)
	tail := m[naiveName(want.manifest.Open)][want.open.end:]
	q := r.Quarantined[0]
	sw.require(q.Offset == int64(want.open.end) && q.Bytes == int64(len(tail)) && q.Reason != "", "recovery reports %+v", q)
}

// goesOn closes the store, opens it again, which must change nothing, and writes
// with a number that no record has had.
func (sw *damageSweep) goesOn(db *annals.Store, fs *faultfs.FS, was storeState, want *naiveStore) {
	quarantined := db.Recovery().Quarantined
	tail := []byte(nil)
	for _, q := range quarantined {
		tail = getFile(sw.t, fs, q.Path)
		sw.require(bytes.Equal(tail, sw.tail(want)), "in quarantine are %q", tail)
	}
	sw.noError(db.Close(), "Close")
	before := fs.Digest("LOCK")
	db, err := annals.Open(storeDir, damageOptions(fs))
	sw.noError(err, "opening again")
	sw.require(db.Recovery().Clean, "the store was closed, opening it again recovers")
	sw.require(fs.Digest("LOCK") == before, "opening again has changed something")
	again := readStore(db, sw.s.want)
	sw.require(sameKeysAndSamples(again, was), "opened again it is\n%v\nand was\n%v", again, was)
	if len(want.broken) == 0 {
		var b annals.Batch
		b.Put("new", nil)
		seq, err := db.Apply(&b)
		sw.noError(err, "writing")
		sw.require(seq > want.greatest, "number %d was given again: a line names %d", seq, want.greatest)
	}
	sw.noError(db.Close(), "closing again")
	sw.require(fs.OpenFiles() == 0, "files are left open")
}

func (sw *damageSweep) tail(want *naiveStore) []byte {
	name := naiveName(want.manifest.Open)
	raw, ok := sw.damage.files[name]
	if !ok {
		raw = sw.s.image[name]
	}
	return raw[want.open.end:]
}

// repair requires of Repair that it leaves the source alone, saves every record
// whose own line is whole, and makes up nothing.
func (sw *damageSweep) repair(m storeImage, want *naiveStore, sums *damageSums) {
	fs := m.fs(sw.t)
	before := fs.Digest("")
	_, err := annals.RepairFS(context.Background(), fs, storeDir, "/top/dest", nil)
	sw.require(fs.Digest("dest") == before, "Repair has changed its source")
	if err != nil {
		return
	}
	sums.repaired++
	db, err := annals.Open("/top/dest", damageOptions(fs))
	sw.noError(err, "opening what Repair made")
	got := readStore(db, sw.s.want)
	sw.noError(db.Close(), "closing what Repair made")
	sw.require(len(got.errs) == 0, "reading what Repair made: %v", got.errs)
	sw.saved(got, m)
}

func (sw *damageSweep) saved(got storeState, m storeImage) {
	whole, newest, once := map[uint64]bool{}, map[string]naiveLine{}, map[string]bool{}
	listed := []uint64{sw.s.naive.manifest.Open}
	for _, f := range sw.s.naive.footers {
		listed = append(listed, f.Sealed)
	}
	for _, n := range listed {
		for _, l := range naiveLines(m[naiveName(n)]) {
			if l.kind == "record" {
				whole[l.Seq] = true
			}
		}
	}
	for _, files := range append(slices.Clone(sw.s.past), sw.s.image) {
		for _, raw := range files {
			for _, l := range naiveLines(raw) {
				if l.kind == "record" {
					once[fmt.Sprintf("%q %d %d %q", l.name, l.Seq, l.at+l.exp, l.value)] = true
				}
			}
		}
	}
	for _, l := range sw.s.naive.records {
		if l.Ser == nil {
			newest[l.name] = l
		} else if text := fmt.Sprintf("%d %d %q", l.Seq, l.at, l.value); whole[l.Seq] {
			sw.require(slices.Contains(got.samples[l.name], text), "Repair has lost sample %s, whose line is whole", text)
		}
	}
	for key, l := range newest {
		text, found := got.keys[key]
		if whole[l.Seq] && l.Del {
			sw.require(!found, "Repair has brought %q back: %s", key, text)
		} else if whole[l.Seq] {
			sw.require(text == fmt.Sprintf("%d %d %q", l.Seq, l.exp, l.value), "Repair has lost record %d, whose line is whole: %q is %s", l.Seq, key, text)
		}
	}
	for key, text := range got.keys {
		sw.require(once[fmt.Sprintf("%q %s", key, text)], "Repair has made up %q: %s", key, text)
	}
}

func (sw *damageSweep) log() {
	total := damageSums{}
	for _, kind := range slices.Sorted(maps.Keys(sw.sums)) {
		n := sw.sums[kind]
		sw.t.Logf("%-10s %-8s %6d cases: %6d refused, %4d read in part, %5d the same, %5d cut, %5d repaired", sw.s.name, kind, n.cases, n.refused, n.failedRead, n.same, n.cut, n.repaired)
		total.cases += n.cases
		total.cut += n.cut
		total.same += n.same
		total.refused += n.refused
	}
	if *damageOnly != "" {
		return
	}
	require.NotZero(sw.t, total.refused, sw.s.name)
	require.NotZero(sw.t, total.same, sw.s.name)
	require.Equal(sw.t, sw.s.clean, total.cut == 0, "%s: a tail was cut in %d cases", sw.s.name, total.cut)
}
