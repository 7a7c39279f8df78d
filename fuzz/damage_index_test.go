package fuzz

import (
	"errors"
	"maps"
	"path"
	"slices"
	"testing"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/fuzz/faultfs"
)

// TestDamageBesideIndex damages closed stores that have an INDEX, and INDEX itself.
// Open then does not read what INDEX stands for. Nothing wrong may be shown for
// that: what is read is what was written, or an error that names the file; and where
// the log alone is whole, INDEX changes nothing of what it says.
func TestDamageBesideIndex(t *testing.T) {
	all := damageSubjects(t)
	for i := range all {
		if !all[i].clean {
			continue
		}
		indexed := withIndex(t, &all[i])
		sw := damageSweep{t: t, s: &indexed, sums: map[string]*damageSums{}}
		sw.runIndexed(all)
		for kind, n := range sw.sums {
			t.Logf("%-10s %-8s %6d cases: %6d with errors, %5d the same", indexed.name, kind, n.cases, n.failedRead, n.same)
		}
	}
}

func indexOptions(fs *faultfs.FS) *annals.Options {
	o := damageOptions(fs)
	o.Checkpoint = 1 << 30 // at Close
	return o
}

// withIndex returns the store as it is when it was opened and closed again.
func withIndex(t testing.TB, s *damageSubject) damageSubject {
	fs := s.image.fs(t)
	db, err := annals.Open(storeDir, indexOptions(fs))
	if err == nil {
		err = db.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	indexed := makeSubject(t, s.name, true, imageOf(t, fs), s.past)
	indexed.twins = s.twins
	if indexed.image["INDEX"] == nil {
		t.Fatal("the store has no INDEX")
	}
	return indexed
}

func (sw *damageSweep) runIndexed(all []damageSubject) {
	n, every := 0, *damageIndex
	if underRace {
		every *= 41
	}
	try := func(kind string, d damaged) {
		d.name = path.Join(sw.s.name, kind, d.name)
		n++
		if *damageOnly == d.name || *damageOnly == "" && (!underRace && slices.Contains(few, kind) || n%every == 0) {
			sw.tryIndexed(kind, d)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(sw.s.image)) {
		raw := sw.s.image[name]
		edits(name, raw, try)
		if name != "INDEX" {
			lineEdits(name, raw, try)
		}
		try("gone", damaged{name: name, files: storeImage{name: nil}, whole: true})
		try("empty", damaged{name: name, files: storeImage{name: {}}})
	}
	sw.foreignLines(try)
	sw.replacements(all, try)
	for i := range all { // the index of another store, and of another time
		if all[i].clean {
			other := withIndex(sw.t, &all[i])
			try("replace", damaged{name: path.Join("INDEX", other.name), files: storeImage{"INDEX": other.image["INDEX"]}, whole: true})
		}
	}
	for i, past := range sw.s.past { // all but INDEX was put back
		files := maps.Clone(past)
		for name := range sw.s.image {
			if files[name] == nil && name != "INDEX" {
				files[name] = nil
			}
		}
		try("replace", damaged{name: path.Join("all but INDEX", string(rune('0'+i))), files: files, whole: true})
	}
	sw.random(try)
}

// tryIndexed opens the damaged store with INDEX and without it.
func (sw *damageSweep) tryIndexed(kind string, d damaged) {
	sw.damage = d
	sw.damage.moved = true
	if sw.sums[kind] == nil {
		sw.sums[kind] = &damageSums{}
	}
	sums := sw.sums[kind]
	sums.cases++
	m := maps.Clone(sw.s.image)
	for name, raw := range d.files {
		if m[name] = raw; raw == nil {
			delete(m, name)
		}
	}
	bare := maps.Clone(m)
	delete(bare, "INDEX")
	log, logErr := sw.opened(bare)
	got, err := sw.opened(m)
	switch {
	case err != nil:
		sums.failedRead++
		sw.require(logErr != nil, "refused for what INDEX says: %v", err)
		damage := (*annals.CorruptError)(nil)
		if errors.As(err, &damage) {
			sw.blame("opening", damage)
		}
	case logErr == nil && len(log.errs) == 0 && len(got.errs) == 0:
		sums.same++
		sw.require(maps.Equal(got.keys, log.keys), "by INDEX the keys are\n%v\nand by the log\n%v", got.keys, log.keys)
		sw.require(maps.EqualFunc(got.samples, log.samples, slices.Equal), "by INDEX the samples are\n%v\nand by the log\n%v", got.samples, log.samples)
		sw.require(slices.Equal(got.watched, log.watched), "by INDEX the records are\n%v\nand by the log\n%v", got.watched, log.watched)
	default:
		sums.failedRead++
		sw.rightOrError(got)
	}
}

// opened returns what a store shows, and a reader of it shows too.
func (sw *damageSweep) opened(m storeImage) (got storeState, err error) {
	fs := m.fs(sw.t)
	reader, readerErr := annals.OpenReader(storeDir, &annals.ReaderOptions{FS: fs, Now: damageOptions(nil).Now})
	db, err := annals.Open(storeDir, damageOptions(fs))
	sw.require((err == nil) == (readerErr == nil) || errors.Is(readerErr, annals.ErrNotStore), "Open says %v, OpenReader %v", err, readerErr)
	if err != nil {
		sw.require(fs.OpenFiles() == 0, "files are left open")
		return got, err
	}
	got = readStore(db, sw.s.want)
	if readerErr == nil {
		seen := readStore(reader, sw.s.want)
		sw.require(maps.Equal(seen.keys, got.keys), "a reader shows keys\n%v\nthe store\n%v", seen.keys, got.keys)
		sw.noError(reader.Close(), "closing the reader")
	}
	sw.noError(db.Close(), "Close")
	sw.require(fs.OpenFiles() == 0, "files are left open")
	return got, nil
}
