package fuzz

import (
	"bytes"
	"errors"
	"maps"
	"path"
	"regexp"
	"slices"
	"testing"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/fuzz/faultfs"
)

// TestDamageWhileOpen damages segments under a store and a reader that have them
// open, as a failing disk does: no check that Open has made helps any more. Every
// read must give what was written or an error that names the line; compaction must
// stop at it and leave everything as it was.
func TestDamageWhileOpen(t *testing.T) {
	all := damageSubjects(t)
	for i := range all {
		if name := all[i].name; name == "padded" || name == "sealing" || name == "recovered" {
			continue // opened they are the killed one again
		}
		// What Open makes of the store is what can be damaged under it.
		fs := all[i].image.fs(t)
		db, err := annals.Open(storeDir, damageOptions(fs))
		if err != nil {
			t.Fatal(err)
		}
		opened := makeSubject(t, all[i].name, true, imageOf(t, fs), nil)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		sw := damageSweep{t: t, s: &opened, sums: map[string]*damageSums{}}
		sw.runOpen()
		for kind, n := range sw.sums {
			t.Logf("%-10s %-8s %6d cases: %6d with errors, %5d the same", opened.name, kind, n.cases, n.failedRead, n.same)
		}
	}
}

var aLine = regexp.MustCompile(`"key":"a","val":[0-9]`)

func (sw *damageSweep) runOpen() {
	n, every := 0, 7
	if underRace {
		every *= 41
	}
	try := func(kind string, d damaged) {
		d.name = path.Join(sw.s.name, kind, d.name)
		n++
		if *damageOnly == d.name || *damageOnly == "" && (kind == "lines" && !underRace || n%every == 0) {
			sw.tryOpen(kind, d)
		}
	}
	for _, f := range sw.s.naive.footers {
		name := naiveName(f.Sealed)
		// The file of another store, whose lines lie as ours do, with another key.
		other := resummed(aLine.ReplaceAll(sw.s.image[name], []byte(`"key":"z","val":8`)))
		sw.tryOpen("replace", damaged{name: path.Join(sw.s.name, "replace", name), files: storeImage{name: other}, whole: true})
		edits(name, sw.s.image[name], try)
		lineEdits(name, sw.s.image[name], try)
	}
}

// tryOpen opens the whole store, damages it, and reads.
func (sw *damageSweep) tryOpen(kind string, d damaged) {
	sw.damage = d
	sw.damage.moved = true
	if sw.sums[kind] == nil {
		sw.sums[kind] = &damageSums{}
	}
	sums := sw.sums[kind]
	fs := sw.s.image.fs(sw.t)
	db, err := annals.Open(storeDir, damageOptions(fs))
	sw.noError(err, "opening the whole store")
	reader, err := annals.OpenReader(storeDir, &annals.ReaderOptions{FS: fs, Now: damageOptions(nil).Now})
	sw.noError(err, "opening a reader")
	for name, raw := range d.files {
		putFile(sw.t, fs, path.Join(storeDir, name), raw)
	}
	got := readStore(db, sw.s.want)
	sums.cases++
	if len(got.errs) > 0 {
		sums.failedRead++
	} else {
		sums.same++
	}
	sw.rightOrError(got)
	sw.rightOrError(readStore(reader, sw.s.want))
	sw.noError(reader.Close(), "closing the reader")
	sw.compactDamaged(db, fs, got)
	sw.noError(db.Close(), "Close")
	sw.require(fs.OpenFiles() == 0, "files are left open")
}

// rightOrError requires that all that was read is right, and that an error stands
// in the place of what is not there.
func (sw *damageSweep) rightOrError(got storeState) {
	sw.t.Helper()
	all := sw.s.want
	whole := len(got.errs) == 0
	for key, text := range all.keys {
		now, found := got.keys[key]
		sw.require(now == text || !found && !whole, "%q is %q and must be %q; errors: %v", key, now, text, got.errs)
	}
	sw.require(len(got.keys) <= len(all.keys), "keys are\n%v\nand must be\n%v", got.keys, all.keys)
	for name := range got.samples {
		sw.require(subsequence(got.samples[name], all.samples[name], whole), "samples of %q are\n%v\nand must be\n%v\nerrors: %v", name, got.samples[name], all.samples[name], got.errs)
	}
	// Watch looks for numbers only: whose lines they are it can't know.
	sw.require(sw.damage.whole || subsequence(got.watched, all.watched, whole), "Watch shows\n%v\nand must show\n%v\nerrors: %v", got.watched, all.watched, got.errs)
	for _, err := range got.errs {
		damage := (*annals.CorruptError)(nil)
		sw.require(errors.As(err, &damage), "reading: %v", err)
		sw.blame("reading", damage)
	}
}

// subsequence tells whether part is some of all in its order; or all of it.
func subsequence(part, all []string, whole bool) bool {
	if whole {
		return slices.Equal(part, all)
	}
	for _, s := range part {
		i := slices.Index(all, s)
		if i < 0 {
			return false
		}
		all = all[i+1:]
	}
	return true
}

// compactDamaged requires that compaction stops at damage, and leaves no trace, or
// loses nothing by it.
func (sw *damageSweep) compactDamaged(db *annals.Store, fs *faultfs.FS, was storeState) {
	before := imageOf(sw.t, fs)
	_, err := db.Compact(sw.t.Context(), nil)
	now := readStore(db, sw.s.want)
	sw.require(maps.Equal(now.keys, was.keys), "compaction has changed keys\n%v\nto\n%v", was.keys, now.keys)
	for name := range was.samples {
		sw.require(slices.Equal(now.samples[name], was.samples[name]), "compaction has changed samples of %q", name)
	}
	if err == nil {
		// The damaged segment was left alone, or what is too much lay behind its end.
		for name, raw := range sw.damage.files {
			sw.require(bytes.HasPrefix(raw, sw.s.image[name]) || bytes.Equal(getFileIf(sw.t, fs, name), raw), "compaction took in the damaged %s", name)
		}
		return
	}
	damage := (*annals.CorruptError)(nil)
	sw.require(errors.As(err, &damage), "compaction: %v", err)
	sw.blame("compaction", damage)
	after := imageOf(sw.t, fs)
	delete(before, "LOCK")
	delete(after, "LOCK")
	sw.require(maps.EqualFunc(before, after, bytes.Equal), "compaction failed and has changed something")
}

// getFileIf is getFile in the store's directory, nil for a file that is gone.
func getFileIf(t testing.TB, fs *faultfs.FS, name string) []byte {
	if _, err := fs.Lstat(path.Join(storeDir, name)); err != nil {
		return nil
	}
	return getFile(t, fs, path.Join(storeDir, name))
}
