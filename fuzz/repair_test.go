package fuzz

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/fuzz/faultfs"
)

var (
	repairSeed  = flag.Uint64("repair.seed", 1, "seed of TestRepairLosesOnlyWhatIsDamaged")
	repairCases = flag.Int("repair.cases", 2400, "damaged stores of TestRepairLosesOnlyWhatIsDamaged")
)

// The oracle of these tests is the text of the files before and after the damage,
// read with the standard library: a record that is still there, letter for letter,
// must be saved.

const (
	brokenStore   = "/top/store"
	repairedStore = "/top/repaired"
)

// textLine is a line of a record, without its newline, and what it says.
type textLine struct {
	text string
	Seq  uint64
	Key  string
	Ser  string
	Val  json.RawMessage
	Del  bool
	Exp  float64
}

// checkedLine takes a line apart if its checksum is right.
func checkedLine(text string) (object string, ok bool) {
	n := len(text) - 9
	if n < 2 || text[n] != ' ' {
		return "", false
	}
	crc, err := strconv.ParseUint(text[n+1:], 16, 32)
	return text[:n], err == nil && crc32.ChecksumIEEE([]byte(text[:n])) == uint32(crc)
}

// recordLines returns the records of a segment by number.
func recordLines(t require.TestingT, text string) map[uint64]textLine {
	all := map[uint64]textLine{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		object, ok := checkedLine(line)
		if !ok || !strings.HasPrefix(object, `{"seq":`) {
			continue
		}
		l := textLine{text: line}
		require.NoError(t, json.Unmarshal([]byte(object), &l))
		all[l.Seq] = l
	}
	return all
}

// files returns the text of the files of a directory.
func filesOf(t require.TestingT, fs *faultfs.FS, dir string) map[string]string {
	entries, err := fs.ReadDir(dir)
	require.NoError(t, err)
	all := map[string]string{}
	for _, e := range entries {
		if e.Type().IsRegular() {
			all[e.Name()] = textOf(t, fs, path.Join(dir, e.Name()))
		}
	}
	return all
}

func textOf(t require.TestingT, fs *faultfs.FS, name string) string {
	file, err := fs.OpenFile(name, os.O_RDONLY, 0)
	require.NoError(t, err)
	defer file.Close()
	info, err := file.Stat()
	require.NoError(t, err)
	text := make([]byte, info.Size())
	if _, err := file.ReadAt(text, 0); err != io.EOF {
		require.NoError(t, err)
	}
	return string(text)
}

func setText(t require.TestingT, fs *faultfs.FS, name, text string) {
	file, err := fs.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	require.NoError(t, err)
	_, err = file.WriteAt([]byte(text), 0)
	require.NoError(t, err)
	require.NoError(t, file.Close())
}

// listedIn returns the names of the segments that MANIFEST lists.
func listedIn(t require.TestingT, manifest string) (names []string, closed bool) {
	closed = true
	for line := range strings.Lines(manifest) {
		object, ok := checkedLine(strings.TrimSuffix(line, "\n"))
		require.True(t, ok)
		var l struct{ Open, Sealed uint64 }
		require.NoError(t, json.Unmarshal([]byte(object), &l))
		if n := l.Open + l.Sealed; n > 0 {
			names = append(names, fmt.Sprintf("%020d.log", n))
		}
		closed = closed && l.Open == 0
	}
	return names, closed
}

// original is a store before the damage.
type original struct {
	fs       *faultfs.FS
	now      time.Time
	files    map[string]string
	live     map[string]map[uint64]textLine // by file
	closed   bool
	leftover bool // files that MANIFEST does not list
}

// busy makes a store with all kinds of records.
type busy struct {
	t   *testing.T
	rnd *rand.Rand
	fs  *faultfs.FS
	db  *annals.Store
	now time.Time
	n   int // for unique values
}

func newBusy(t *testing.T, rnd *rand.Rand) *busy {
	b := &busy{t: t, rnd: rnd, fs: faultfs.New(), now: time.Unix(1_750_000_000, 0)}
	b.open()
	return b
}

func (b *busy) open() {
	db, err := annals.Open(brokenStore, &annals.Options{FS: b.fs, SegmentSize: 4096, Now: func() time.Time { return b.now },
		Compaction: annals.Compaction{Off: true, Grace: time.Nanosecond}})
	require.NoError(b.t, err)
	b.db = db
}

func (b *busy) compact() {
	_, err := b.db.Compact(b.t.Context(), nil)
	require.NoError(b.t, err)
}

// value is a new one of size bytes and a few.
func (b *busy) value(size int) []byte {
	b.n++
	return fmt.Appendf(nil, "%d%s", b.n, strings.Repeat("x", size))
}

// step makes one operation.
func (b *busy) step() {
	var batch annals.Batch
	key := fmt.Sprintf("k%d", b.rnd.IntN(3))
	switch b.rnd.IntN(10) {
	case 0, 1:
		batch.Put(key, b.value(0))
	case 2:
		batch.Delete(key)
	case 3:
		batch.Append("s", b.value(0))
	case 4, 5:
		b.commit(&batch, []int{0, 2200}[b.rnd.IntN(2)])
	case 6: // fills the segment
		batch.Put("full", b.value(3900))
	case 7:
		b.compact()
		return
	case 8:
		require.NoError(b.t, b.db.Close())
		b.open()
		return
	case 9:
		batch.Put(key, b.value(0), annals.ExpiresAt(b.now.Add(time.Minute)))
		b.now = b.now.Add(time.Duration(b.rnd.IntN(2)) * 2 * time.Minute)
	}
	_, err := b.db.Apply(&batch)
	require.NoError(b.t, err)
}

// commit makes three records that belong together.
func (b *busy) commit(batch *annals.Batch, size int) {
	batch.Put("k0", b.value(size))
	batch.Put("k1", b.value(size))
	batch.Append("s", b.value(0))
}

// originals makes stores of all kinds: closed and killed, compacted, and caught in
// the middle of a compaction, with its files half written or half removed.
func originals(t *testing.T, rnd *rand.Rand, n int) (list []*original) {
	for len(list) < n {
		b := newBusy(t, rnd)
		for range 10 + rnd.IntN(60) {
			b.step()
		}
		var caught []*faultfs.FS
		b.fs.Hook(func(op faultfs.Op) {
			if op.Kind == faultfs.Remove || op.Kind.Changes() && rnd.IntN(6) == 0 {
				caught = append(caught, b.fs.Clone())
			}
		})
		b.compact()
		b.fs.Hook(nil)
		for range rnd.IntN(8) {
			b.step()
		}
		caught = append(caught, b.fs.Clone())
		require.NoError(t, b.db.Close())
		caught = append(caught, b.fs.Clone())
		for _, fs := range caught {
			list = append(list, newOriginal(t, fs, b.now))
		}
	}
	rnd.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list[:n]
}

func newOriginal(t *testing.T, fs *faultfs.FS, now time.Time) *original {
	o := &original{fs: fs, now: now, files: filesOf(t, fs, brokenStore), live: map[string]map[uint64]textLine{}}
	delete(o.files, "LOCK")
	var names []string
	names, o.closed = listedIn(t, o.files["MANIFEST"])
	for _, name := range names {
		o.live[name] = recordLines(t, o.files[name])
	}
	for name := range o.files {
		o.leftover = o.leftover || strings.HasSuffix(name, ".log") && o.live[name] == nil
	}
	return o
}

// hurt is a store with damage in it.
type hurt struct {
	*original
	t     *testing.T
	rnd   *rand.Rand
	where string
	fs    *faultfs.FS
	texts map[string]string // of the files that are there
	did   []string

	manifest bool // was damaged
	removed  bool // a live segment is gone
}

func (d *hurt) hit() {
	names := slices.Sorted(maps.Keys(d.live))
	name := names[d.rnd.IntN(len(names))]
	if d.rnd.IntN(6) == 0 {
		name = "MANIFEST"
	}
	text, there := d.texts[name]
	if !there || text == "" {
		return
	}
	lines := strings.SplitAfter(text, "\n")
	i := d.rnd.IntN(len(lines))
	if d.rnd.IntN(6) == 0 {
		i = []int{0, max(len(lines)-2, 0)}[d.rnd.IntN(2)] // header or footer
	}
	what := d.rnd.IntN(9)
	d.did = append(d.did, fmt.Sprintf("%d in line %d of %s", what, i, name))
	line := lines[i]
	switch what {
	case 0, 1: // a bit
		if b := []byte(line); len(b) > 1 {
			b[d.rnd.IntN(len(b)-1)] ^= 1 << d.rnd.IntN(8)
			lines[i] = string(b)
		}
	case 2: // of its newline
		lines[i] = strings.TrimSuffix(line, "\n") + "\x0b"
	case 3: // gone
		lines[i] = ""
	case 4: // torn
		lines[i] = line[:d.rnd.IntN(len(line)+1)]
	case 5: // a sector
		b := []byte(text)
		at := d.rnd.IntN(len(b)) &^ 511
		clear(b[at:min(at+512, len(b))])
		lines = []string{string(b)}
	case 6: // the end
		lines = []string{text[:d.rnd.IntN(len(text))]}
	case 7: // something in between
		lines[i] = "rubbish } 12345678{\"seq\":\n" + line
	case 8: // the file
		if d.rnd.IntN(3) > 0 {
			return
		}
		delete(d.texts, name)
		d.manifest = d.manifest || name == "MANIFEST"
		d.removed = d.removed || name != "MANIFEST"
		require.NoError(d.t, d.fs.Remove(path.Join(brokenStore, name)))
		return
	}
	now := strings.Join(lines, "")
	d.manifest = d.manifest || name == "MANIFEST" && now != text
	d.texts[name] = now
	setText(d.t, d.fs, path.Join(brokenStore, name), now)
}

// survivors are the live records that are still there.
func (d *hurt) survivors() map[uint64]textLine {
	all := map[uint64]textLine{}
	for name, lines := range d.live {
		for seq, l := range lines {
			if strings.Contains(d.texts[name], l.text) {
				all[seq] = l
			}
		}
	}
	return all
}

// shown is what a store of these records shows.
func shown(now time.Time, records map[uint64]textLine) (keys map[string]textLine, samples []string) {
	keys = map[string]textLine{}
	for _, seq := range slices.Sorted(maps.Keys(records)) {
		if l := records[seq]; l.Ser != "" {
			samples = append(samples, string(l.Val))
		} else {
			keys[l.Key] = l
		}
	}
	for key, l := range keys {
		if l.Del || l.Exp != 0 && !now.Before(time.UnixMicro(int64(l.Exp*1e6))) {
			delete(keys, key)
		}
	}
	return keys, samples
}

// TestRepairLosesOnlyWhatIsDamaged damages random lines, and more, of random
// stores and repairs them.
func TestRepairLosesOnlyWhatIsDamaged(t *testing.T) {
	cases := *repairCases
	if underRace {
		cases /= 10
	}
	met := map[string]int{}
	list := originals(t, rand.New(rand.NewPCG(*repairSeed, 0)), 60)
	for i := range cases {
		rnd := rand.New(rand.NewPCG(*repairSeed, uint64(i+1)))
		o := list[rnd.IntN(len(list))]
		d := &hurt{original: o, t: t, rnd: rnd, fs: o.fs.Clone(), texts: maps.Clone(o.files)}
		for range rnd.IntN(5) {
			d.hit()
		}
		d.where = fmt.Sprintf("case %d: %v; replay with -repair.seed=%d -repair.cases=%d", i, d.did, *repairSeed, i+1)
		d.repair(met)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d cases: %v", cases, met)
	if !underRace {
		for _, what := range []string{"nothing lost", "lost", "no MANIFEST", "leftovers, no MANIFEST", "kept", "left out", "unfinished", "glued"} {
			require.NotZero(t, met[what], "no case has met: %s", what)
		}
	}
}

func (d *hurt) repair(met map[string]int) {
	before := d.fs.Digest("")
	report, err := annals.RepairFS(d.t.Context(), d.fs, brokenStore, repairedStore, nil)
	alive := d.survivors()
	if err != nil {
		require.ErrorIs(d.t, err, annals.ErrNotStore, d.where)
		require.Empty(d.t, alive, d.where)
		require.Equal(d.t, before, d.fs.Digest(""), d.where)
		met["no store"]++
		return
	}
	require.Zero(d.t, d.fs.OpenFiles(), d.where)
	saved := map[uint64]textLine{}
	outcome := filesOf(d.t, d.fs, repairedStore)
	for name, text := range outcome {
		if strings.HasSuffix(name, ".log") {
			maps.Copy(saved, recordLines(d.t, text))
		}
	}
	d.require("the source has changed", d.sourceIsUntouched())
	require.EqualValues(d.t, len(saved), report.Records, d.where)
	d.savedIsRight(saved, alive, &report)
	d.listsWhatIsLost(saved, &report)
	d.keepsWhatIsBad(&report)
	d.opens(saved)
	count := func(what string, is bool) {
		if is {
			met[what]++
		}
	}
	count("nothing lost", report.OK())
	count("lost", !report.OK())
	count("no MANIFEST", d.manifest)
	count("leftovers, no MANIFEST", d.manifest && d.leftover)
	count("kept", len(report.Kept) > 0)
	count("left out", len(report.LeftOut) > 0)
	count("partial commits", len(report.Partial) > 0)
	for _, e := range report.Damage {
		count("unfinished", strings.Contains(e.Reason, "nothing proves"))
	}
	for _, l := range alive {
		for name := range d.live {
			i := strings.Index(d.texts[name], l.text)
			count("glued", i > 0 && d.texts[name][i-1] != '\n')
		}
	}
}

func (d *hurt) require(what string, ok bool) {
	require.True(d.t, ok, "%s: %s", what, d.where)
}

func (d *hurt) sourceIsUntouched() bool {
	now := filesOf(d.t, d.fs, brokenStore)
	delete(now, "LOCK")
	return maps.Equal(d.texts, now)
}

// guesses tells whether the compaction's argument can't hold: MANIFEST is gone,
// files of a compaction lie about, and one that it read or wrote has vanished.
func (d *hurt) guesses() bool {
	header := slices.ContainsFunc(d.did, func(what string) bool { return strings.Contains(what, "in line 0 of") })
	return d.manifest && d.leftover && (d.removed || header)
}

func (d *hurt) savedIsRight(saved, alive map[uint64]textLine, report *annals.RepairReport) {
	ever, live := map[uint64]textLine{}, map[uint64]textLine{}
	for name, text := range d.files {
		maps.Copy(ever, recordLines(d.t, text))
		maps.Copy(live, d.live[name])
	}
	for seq, l := range saved {
		require.Equal(d.t, ever[seq].text, l.text, "record %d: %s", seq, d.where)
		if !d.manifest {
			require.Contains(d.t, live, seq, "record %d was dead: %s", seq, d.where)
		}
	}
	if d.guesses() {
		return
	}
	for seq := range alive {
		require.Contains(d.t, saved, seq, "record %d is lost: %s: %+v", seq, d.where, report)
	}
	keys, samples := shown(d.now, live)
	now, nowSamples := shown(d.now, saved)
	hurt := map[string]bool{}
	for seq, l := range live {
		if _, ok := alive[seq]; !ok {
			hurt[l.Key] = true
		}
	}
	for key := range now {
		if !hurt[key] {
			require.Equal(d.t, keys[key].text, now[key].text, "key %s is not what it was: %s", key, d.where)
		}
	}
	for key := range keys {
		if !hurt[key] {
			require.Contains(d.t, now, key, d.where)
		}
	}
	if !hurt[""] {
		require.Equal(d.t, samples, nowSamples, d.where)
	}
}

func (d *hurt) listsWhatIsLost(saved map[uint64]textLine, report *annals.RepairReport) {
	gone := 0
	for name, lines := range d.live {
		for seq := range lines {
			if _, ok := saved[seq]; ok {
				continue
			}
			listed := func(list []*annals.CorruptError, unproven bool) bool {
				return slices.ContainsFunc(list, func(e *annals.CorruptError) bool {
					inFile := path.Base(e.Path) == name
					return e.FirstSeq <= seq && seq <= e.LastSeq || inFile && e.FirstSeq == 0 && (!unproven || strings.Contains(e.Reason, "nothing proves"))
				})
			}
			gone++
			unproven := (!d.closed || d.manifest) && (listed(report.Damage, true) || d.endedEarly(name, seq))
			if !d.guesses() && !(d.manifest && d.removed) {
				require.True(d.t, unproven || listed(report.Lost, false), "record %d of %s is lost and not listed: %s: %+v\n%s", seq, name, d.where, report, d.texts["MANIFEST"])
			}
		}
	}
	if gone == 0 && !d.manifest && !d.removed {
		for _, e := range report.Lost {
			require.Fail(d.t, "nothing is lost", "%v: %s\n%+v\n%s", e, d.where, report, d.texts[path.Base(e.Path)])
		}
	}
	for _, e := range report.Lost {
		require.LessOrEqual(d.t, e.FirstSeq, e.LastSeq, "%v: %s", e, d.where)
	}
}

// endedEarly tells whether all that spoke of a record of the open segment is gone
// with it: nobody can tell then that it was there.
func (d *hurt) endedEarly(name string, seq uint64) bool {
	for other, l := range d.live[name] {
		if !strings.Contains(d.texts[name], l.text) {
			continue
		}
		if other > seq || strings.Contains(l.text, fmt.Sprintf(`"dur":%d,`, seq)) {
			return false
		}
	}
	_, footer, sealed := strings.Cut(d.files[name], `{"sealed":`)
	return !sealed || !strings.Contains(d.texts[name], footer)
}

// keepsWhatIsBad holds the bytes of every bad line of the live files against
// quarantine.
func (d *hurt) keepsWhatIsBad(report *annals.RepairReport) {
	out := map[string]bool{}
	for _, l := range report.LeftOut {
		out[path.Base(l.Path)] = true
	}
	for name := range d.live {
		at := 0
		for line := range strings.Lines(d.texts[name]) {
			_, good := checkedLine(strings.TrimSuffix(line, "\n"))
			good = good && strings.HasSuffix(line, "\n") || line == "\n"
			begin := int64(at)
			at += len(line)
			if good || out[name] {
				continue
			}
			d.require(fmt.Sprintf("%q at offset %d of %s is not kept", line, begin, name), slices.ContainsFunc(report.Kept, func(q annals.Quarantined) bool {
				if fmt.Sprintf("%020d.log", q.Segment) != name || q.Offset > begin || q.Offset+q.Bytes < int64(at) {
					return false
				}
				kept := textOf(d.t, d.fs, q.Path)
				return kept == d.texts[name][q.Offset:q.Offset+q.Bytes]
			}))
		}
	}
}

// opens makes sure that the outcome is a whole store that shows what was saved and
// gives no number again.
func (d *hurt) opens(saved map[uint64]textLine) {
	report, err := annals.VerifyFS(d.t.Context(), d.fs, repairedStore, nil)
	require.NoError(d.t, err, d.where)
	require.Empty(d.t, report.Problems, d.where)
	require.Empty(d.t, report.Leftover, d.where)
	db, err := annals.Open(repairedStore, &annals.Options{FS: d.fs, Now: func() time.Time { return d.now }, Compaction: annals.Compaction{Off: true}})
	require.NoError(d.t, err, d.where)
	keys, samples := shown(d.now, saved)
	for e, err := range db.Scan(annals.Range{}) {
		require.NoError(d.t, err, d.where)
		want, ok := keys[e.Key]
		require.True(d.t, ok, "key %s: %s", e.Key, d.where)
		require.Equal(d.t, want.Seq, e.Seq, d.where)
		require.True(d.t, bytes.Equal(want.Val, e.Value) || len(want.Val) == 0, d.where)
		delete(keys, e.Key)
	}
	require.Empty(d.t, keys, d.where)
	i := 0
	for s, err := range db.Samples("s", annals.Window{}) {
		require.NoError(d.t, err, d.where)
		require.Equal(d.t, samples[i], orText(string(s.Value), samples[i]), d.where)
		i++
	}
	require.Len(d.t, samples, i, d.where)
	greatest := uint64(0)
	for _, text := range d.texts {
		for seq := range recordLines(d.t, text) {
			greatest = max(greatest, seq)
		}
	}
	var b annals.Batch
	b.Put("new", nil)
	seq, err := db.Apply(&b)
	require.NoError(d.t, err, d.where)
	require.Greater(d.t, seq, greatest, d.where)
	require.NoError(d.t, db.Close(), d.where)
}

// orText lets a sample whose value is no JSON pass: the oracle reads "val" only.
func orText(have, want string) string {
	if want == "" {
		return want
	}
	return have
}
