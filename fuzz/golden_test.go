package fuzz

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/fuzz/faultfs"
)

// testdata/golden holds whole stores of each format that was ever released, and
// beside each, in a .txt, what a version of annals makes of it: v1 are stores of
// format 1, whole and damaged and left in the middle of things, newer are those of
// a format that does not exist yet. They were made once and never change: every
// later version must make the same of them. The list of their sums is in
// SHA256SUMS, and the sum of that list is here.
const (
	goldenRoot = "testdata/golden"
	goldenSum  = "9245b98d4996827b0b165018c2b3268e567a844f712a5b0de6612c782a1c2977"
)

var goldenMake = flag.String("golden.make", "", "a new directory into which TestMakeGolden writes stores of the present format")

func TestGoldenStoresWereNotTouched(t *testing.T) {
	list, err := os.ReadFile(filepath.Join(goldenRoot, "SHA256SUMS"))
	require.NoError(t, err)
	require.Equal(t, goldenSum, sumOf(list), "the list of golden files has changed: they are never made anew")
	want := map[string]string{}
	for l := range strings.Lines(string(list)) {
		sum, name, _ := strings.Cut(strings.TrimSuffix(l, "\n"), "  ")
		want[name] = sum
	}
	require.Equal(t, want, goldenSums(t, goldenRoot))
}

func sumOf(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// goldenSums are the sums of all files but the list itself.
func goldenSums(t *testing.T, root string) map[string]string {
	sums := map[string]string{}
	require.NoError(t, filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == "SHA256SUMS" {
			return err
		}
		raw, err := os.ReadFile(name)
		rel, _ := filepath.Rel(root, name)
		sums[filepath.ToSlash(rel)] = sumOf(raw)
		return err
	}))
	return sums
}

func TestGoldenStoresAreReadAsEver(t *testing.T) {
	names := goldenNames(t)
	require.Len(t, names, 15)
	for _, name := range names {
		t.Run(filepath.ToSlash(name), func(t *testing.T) {
			want, err := os.ReadFile(name + ".txt")
			require.NoError(t, err)
			require.Equal(t, string(want), goldenDump(t, goldenImage(t, name)))
		})
	}
}

// goldenNames are the directories of the stores.
func goldenNames(t testing.TB) []string {
	names, err := filepath.Glob(filepath.Join(goldenRoot, "*", "*.txt"))
	require.NoError(t, err)
	for i := range names {
		names[i] = strings.TrimSuffix(names[i], ".txt")
	}
	return names
}

// goldenImage reads a store's files.
func goldenImage(t testing.TB, dir string) storeImage {
	m := storeImage{}
	require.NoError(t, filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, name)
		m[filepath.ToSlash(rel)], err = os.ReadFile(name)
		return err
	}))
	return m
}

// goldenDump says all that annals makes of a store: what Verify and a reader say
// of it as it is, what Open reports and leaves, and all that can be read.
func goldenDump(t *testing.T, m storeImage) string {
	var b strings.Builder
	fs := m.fs(t)
	before := fs.Digest("LOCK")
	report, err := annals.VerifyFS(context.Background(), fs, storeDir, nil)
	fmt.Fprintf(&b, "verify: %d segments, %d records to %d, leftover %q, error %s\n", report.Segments, report.Records, report.LastSeq, report.Leftover, describe(err))
	for _, p := range report.Problems {
		fmt.Fprintf(&b, "verify: %s\n", describe(p))
	}
	if tail := report.Tail; tail != nil {
		fmt.Fprintf(&b, "verify: tail of %d bytes at %s, %d\n", tail.Bytes, inStore(tail.Path), tail.Offset)
	}
	reader, err := annals.OpenReader(storeDir, &annals.ReaderOptions{FS: fs, Now: damageOptions(nil).Now})
	fmt.Fprintf(&b, "reader: error %s\n", describe(err))
	seen := ""
	if err == nil {
		seen = dumpAll(reader)
		require.NoError(t, reader.Close())
	}
	require.Equal(t, before, fs.Digest("LOCK"), "reading has changed something")
	db, err := annals.Open(storeDir, damageOptions(fs))
	fmt.Fprintf(&b, "open: error %s\n", describe(err))
	if err != nil {
		require.True(t, errors.Is(err, annals.ErrCorrupt) || errors.Is(err, annals.ErrNewerFormat), "%v", err)
		require.Equal(t, before, fs.Digest("LOCK"), "a store was refused and changed")
		return b.String()
	}
	r := db.Recovery()
	fmt.Fprintf(&b, "recovery: clean %v, segment %d became %d, %d records to %d, removed %q, clock ahead %q\n",
		r.Clean, r.Segment, r.Rewritten, r.Records, r.LastSeq, r.Removed, r.ClockAhead)
	for _, q := range r.Quarantined {
		fmt.Fprintf(&b, "quarantined: %s, segment %d, offset %d, %d bytes: %q\n", inStore(q.Path), q.Segment, q.Offset, q.Bytes, getFile(t, fs, q.Path))
	}
	opened := dumpAll(db)
	require.Equal(t, seen, opened, "a reader sees something else than the writer")
	b.WriteString(opened)
	require.NoError(t, db.Close())
	after := imageOf(t, fs)
	s := naiveRead(after)
	fmt.Fprintf(&b, "manifest: generation %d, next %d, seq %d, history %d, open %d\n", s.manifest.Generation, s.manifest.Next, s.manifest.Seq, s.manifest.History, s.manifest.Open)
	for _, f := range s.footers {
		fmt.Fprintf(&b, "segment %d: %d to %d, %d records\n", f.Sealed, f.First, f.Last, f.Records)
	}
	fmt.Fprintf(&b, "files: %q\n", slices.Sorted(maps.Keys(after)))
	return b.String()
}

// describe says of an error what never changes, which is not how it is worded.
func describe(err error) string {
	damage := (*annals.CorruptError)(nil)
	switch {
	case errors.As(err, &damage):
		return fmt.Sprintf("corrupt: %s at offset %d, records %d to %d", inStore(damage.Path), damage.Offset, damage.FirstSeq, damage.LastSeq)
	case errors.Is(err, annals.ErrNewerFormat):
		return "newer format"
	case err == nil:
		return "none"
	}
	return err.Error()
}

func inStore(name string) string {
	name, _ = filepath.Rel(storeDir, filepath.FromSlash(name))
	return filepath.ToSlash(name)
}

// dumpAll writes down all that a reader can see, in order.
func dumpAll(r readable) string {
	st := readStore(r, storeState{samples: map[string][]string{"s": nil}})
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(st.keys)) {
		fmt.Fprintf(&b, "key %q: %s\n", k, st.keys[k])
	}
	for _, name := range slices.Sorted(maps.Keys(st.samples)) {
		for _, s := range st.samples[name] {
			fmt.Fprintf(&b, "sample of %q: %s\n", name, s)
		}
	}
	for _, w := range st.watched {
		fmt.Fprintf(&b, "watched: %s\n", w)
	}
	errs := map[string]bool{} // however often
	for _, err := range st.errs {
		errs[describe(err)] = true
	}
	for _, e := range slices.Sorted(maps.Keys(errs)) {
		fmt.Fprintf(&b, "error: %s\n", e)
	}
	return b.String()
}

// TestMakeGolden makes stores of the present format, with what this version makes
// of them, in a new directory. It is for the day when a version with a new format
// is released; what is there already stays as it is. Without -golden.make it only
// proves that the stores can still be made.
func TestMakeGolden(t *testing.T) {
	root := *goldenMake
	if root == "" {
		root = filepath.Join(t.TempDir(), "golden")
	}
	require.NoError(t, os.Mkdir(root, 0o755), "the directory must be a new one")
	for name, m := range goldenStores(t) {
		delete(m, "LOCK") // it holds nothing
		for file, raw := range m {
			file = filepath.Join(root, filepath.FromSlash(name), filepath.FromSlash(file))
			require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
			require.NoError(t, os.WriteFile(file, raw, 0o644))
		}
		require.NoError(t, os.WriteFile(filepath.Join(root, filepath.FromSlash(name)+".txt"), []byte(goldenDump(t, m)), 0o644))
	}
	sums := goldenSums(t, root)
	var list strings.Builder
	for _, name := range slices.SortedFunc(maps.Keys(sums), cmp.Compare[string]) {
		fmt.Fprintf(&list, "%s  %s\n", sums[name], name)
	}
	require.NoError(t, os.WriteFile(filepath.Join(root, "SHA256SUMS"), []byte(list.String()), 0o644))
	t.Logf("%d files in %s, the sum of the list is %s", len(sums), root, sumOf([]byte(list.String())))
}

// goldenStores are the stores, by the names of their directories.
func goldenStores(t *testing.T) map[string]storeImage {
	k := newStoreMaker(t, 100)
	k.session()
	k.close()
	k.session()
	killed := unpadded(imageOf(t, k.fs))
	open := naiveName(naiveRead(killed).manifest.Open)
	k.close()
	closed := imageOf(t, k.fs)

	torn := maps.Clone(killed)
	torn[open] = slices.Concat(torn[open], []byte(crcLine(`{"seq":19,"dur":18,"more":true,"key":"half a commit","val":1}`)), []byte("{\"seq\":20,\"key\":\"\x00\x00\n\n\n"))
	corrupt := maps.Clone(closed)
	corrupt[naiveName(1)] = bytes.Replace(closed[naiveName(1)], []byte(`"two`), []byte(`"twp`), 1)
	durable := maps.Clone(killed)
	durable[open] = bytes.Replace(killed[open], []byte(`"two`), []byte(`"twp`), 1)
	manifest := maps.Clone(closed)
	manifest["MANIFEST"] = bytes.Replace(closed["MANIFEST"], []byte(`"seq":19`), []byte(`"seq":91`), 1)

	samples := seriesStore(t).image
	for name, raw := range samples {
		if bytes.Contains(raw, []byte(`"order":"seq"`)) {
			samples[name] = bytes.Replace(raw, []byte(`"ser":"s"`), []byte(`"ser":"S"`), 1)
		}
	}
	newer, newerManifest := maps.Clone(killed), maps.Clone(killed)
	newer[open] = asNewer(killed[open])
	newerManifest["MANIFEST"] = asNewer(killed["MANIFEST"])
	outputs, inputs := interruptedCompactions(t)
	return map[string]storeImage{
		"v1/small": closed, "v1/killed": killed, "v1/torn": torn, "v1/recovered": recoveredStore(t, killed).image,
		"v1/corrupt": corrupt, "v1/corrupt-durable": durable, "v1/corrupt-manifest": manifest, "v1/corrupt-samples": samples,
		"v1/expired": expiredStore(t), "v1/compacted": compactedStore(t).image,
		"v1/indexed":            indexedStore(t),
		"v1/compacting-outputs": outputs, "v1/compacting-inputs": inputs,
		"newer/segment": newer, "newer/manifest": newerManifest,
	}
}

// asNewer makes a file say that it is of format 2.
func asNewer(raw []byte) []byte {
	first, rest, _ := bytes.Cut(raw, []byte("\n"))
	object := strings.Replace(string(first[:len(first)-9]), `"annals":1`, `"annals":2`, 1)
	return append([]byte(crcLine(object)), rest...)
}

// expiredStore was last used two hours later than the tests open it, when one of
// its keys had expired.
func expiredStore(t *testing.T) storeImage {
	k := newStoreMaker(t, 101)
	k.session()
	k.apply(func(b *annals.Batch) { b.Put("later", []byte("1"), annals.ExpiresAt(damageNow.Add(3*time.Hour))) })
	k.close()
	o := damageOptions(k.fs)
	o.Now = func() time.Time { return damageNow.Add(2 * time.Hour) }
	db, err := annals.Open(storeDir, o)
	require.NoError(t, err)
	require.NoError(t, db.Put("k", []byte("1")))
	require.NoError(t, db.Close())
	return imageOf(t, k.fs)
}

// indexedStore has an INDEX that stands for part of its log, and was killed.
func indexedStore(t *testing.T) storeImage {
	k := newStoreMaker(t, 103)
	k.session()
	k.apply(func(b *annals.Batch) { b.Put(strings.Repeat("long ", 300), []byte("1")) })
	k.compact()
	k.close()
	k.session()
	k.apply(func(b *annals.Batch) { b.Put("deleted later", []byte("1")) })
	require.NoError(t, k.db.Checkpoint(t.Context()))
	k.apply(func(b *annals.Batch) {
		b.Delete("deleted later")
		b.Put("a", []byte("behind INDEX"))
		b.Append("s", []byte("9"), annals.At(damageNow))
	})
	killed := unpadded(imageOf(t, k.fs))
	k.close()
	return killed
}

// TestGoldenIndexIsTaken opens the store with an INDEX, which shows the same without
// it, and is not read from the beginning with it.
func TestGoldenIndexIsTaken(t *testing.T) {
	m := goldenImage(t, filepath.Join(goldenRoot, "v1", "indexed"))
	db, err := annals.Open(storeDir, damageOptions(m.fs(t)))
	require.NoError(t, err)
	with, r := dumpAll(db), db.Recovery()
	require.NoError(t, db.Close())
	require.NotZero(t, r.Indexed)
	require.Less(t, r.Replayed, r.Indexed)
	delete(m, "INDEX")
	db, err = annals.Open(storeDir, damageOptions(m.fs(t)))
	require.NoError(t, err)
	require.Equal(t, dumpAll(db), with)
	require.Less(t, r.Replayed, db.Recovery().Replayed)
	require.NoError(t, db.Close())
}

// interruptedCompactions are the store when compaction has made its outputs and
// MANIFEST does not list them yet, and when it lists them and the inputs are still
// there.
func interruptedCompactions(t *testing.T) (outputs, inputs storeImage) {
	k := newStoreMaker(t, 102)
	k.session()
	k.close()
	k.session()
	k.fs.Hook(func(op faultfs.Op) {
		switch {
		case op.Kind == faultfs.Rename && path.Base(op.Path) == "MANIFEST":
			outputs = imageOf(t, k.fs.Clone())
		case op.Kind == faultfs.Remove && inputs == nil:
			inputs = imageOf(t, k.fs.Clone())
		}
	})
	k.compact()
	k.fs.Hook(nil)
	k.close()
	return outputs, inputs
}
