package fuzz

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"path"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/fuzz/faultfs"
	"github.com/annalsdb/annals/replace"
)

// storeImage is what lies in a store's directory: contents by name.
type storeImage map[string][]byte

// fs puts the image on a file system of its own.
func (m storeImage) fs(t require.TestingT) *faultfs.FS {
	fs := faultfs.New()
	require.NoError(t, replace.MkdirAll(fs, storeDir, 0o700))
	for name, raw := range m {
		if dir := path.Dir(name); dir != "." {
			if err := fs.Mkdir(path.Join(storeDir, dir), 0o700); !errors.Is(err, os.ErrExist) {
				require.NoError(t, err)
			}
		}
		putFile(t, fs, path.Join(storeDir, name), raw)
	}
	return fs
}

// putFile gives a file its contents, as a fault would: in place.
func putFile(t require.TestingT, fs *faultfs.FS, name string, raw []byte) {
	file, err := fs.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(t, err)
	require.NoError(t, file.Truncate(int64(len(raw))))
	_, err = file.WriteAt(raw, 0)
	require.NoError(t, err)
	require.NoError(t, file.Close())
}

// imageOf reads a store's directory.
func imageOf(t require.TestingT, fs *faultfs.FS) storeImage {
	m := storeImage{}
	for _, dir := range []string{"", "quarantine"} {
		entries, err := fs.ReadDir(path.Join(storeDir, dir))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		require.NoError(t, err)
		for _, e := range entries {
			if !e.IsDir() {
				m[path.Join(dir, e.Name())] = getFile(t, fs, path.Join(storeDir, dir, e.Name()))
			}
		}
	}
	return m
}

func getFile(t require.TestingT, fs *faultfs.FS, name string) []byte {
	file, err := fs.OpenFile(name, os.O_RDONLY, 0)
	require.NoError(t, err)
	info, err := file.Stat()
	require.NoError(t, err)
	raw := make([]byte, info.Size())
	_, err = file.ReadAt(raw, 0)
	if !errors.Is(err, io.EOF) {
		require.NoError(t, err)
	}
	require.NoError(t, file.Close())
	return raw
}

// damageNow is the time in all these stores.
var damageNow = time.Unix(1_750_000_000, 0)

func damageOptions(fs *faultfs.FS) *annals.Options {
	return &annals.Options{FS: fs, SegmentSize: 4096, Now: func() time.Time { return damageNow },
		Compaction: annals.Compaction{Off: true, Grace: time.Nanosecond}}
}

// damageSubject is a store to be damaged.
type damageSubject struct {
	name  string
	clean bool         // it was closed
	image storeImage   // its files
	past  []storeImage // older states of the same store
	twins []storeImage // other stores that are like it but for their identity
	want  storeState   // what a reader sees of it
	naive naiveStore
}

// storeMaker makes the subjects, and keeps all states that they go through.
type storeMaker struct {
	t    testing.TB
	fs   *faultfs.FS
	db   *annals.Store
	past []storeImage
	n    int
}

func newStoreMaker(t *testing.T, seed uint64) *storeMaker {
	cryptotest.SetGlobalRandom(t, seed) // the same store, whoever makes it
	return &storeMaker{t: t, fs: faultfs.New()}
}

func (k *storeMaker) open() {
	db, err := annals.Open(storeDir, damageOptions(k.fs))
	require.NoError(k.t, err)
	k.db = db
}

func (k *storeMaker) close() {
	require.NoError(k.t, k.db.Close())
	k.keep()
}

// keep notes the present state.
func (k *storeMaker) keep() { k.past = append(k.past, imageOf(k.t, k.fs)) }

func (k *storeMaker) apply(fill func(b *annals.Batch)) {
	var b annals.Batch
	fill(&b)
	_, err := k.db.Apply(&b)
	require.NoError(k.t, err)
	k.keep()
}

// session writes one of each: puts that replace others, a delete, all spellings
// of keys and values, an expiry, samples, and a commit of several records. Many
// lines are as long as others, so that a line in the place of another fits.
func (k *storeMaker) session() {
	k.open()
	k.keep()
	k.n++
	n := k.n
	k.apply(func(b *annals.Batch) { b.Put("a", fmt.Appendf(nil, "%d", n)) })
	k.apply(func(b *annals.Batch) { b.Append("s", fmt.Appendf(nil, "%d", n), annals.At(damageNow)) })
	k.apply(func(b *annals.Batch) {
		b.Put("a", fmt.Appendf(nil, "%d", n+1))
		b.Put("b", []byte("two\nlines"))
		b.Append("s", []byte("\x00\xff"), annals.At(damageNow))
	})
	k.apply(func(b *annals.Batch) { b.Delete("b") })
	k.apply(func(b *annals.Batch) { b.Put("\xff", []byte("1"), annals.ExpiresAt(damageNow.Add(time.Hour))) })
	k.apply(func(b *annals.Batch) { b.Put("a", fmt.Appendf(nil, "%d", n+2)) })
	k.apply(func(b *annals.Batch) { b.Put("c", fmt.Appendf(nil, "%d", n)) })
}

func (k *storeMaker) compact() {
	_, err := k.db.Compact(k.t.Context(), nil)
	require.NoError(k.t, err)
	k.keep()
}

// subject ends the making: the store as it is now.
func (k *storeMaker) subject(name string, clean bool) damageSubject {
	return makeSubject(k.t, name, clean, imageOf(k.t, k.fs), k.past)
}

func makeSubject(t testing.TB, name string, clean bool, m storeImage, past []storeImage) damageSubject {
	s := damageSubject{name: name, clean: clean, image: m, past: past, naive: naiveRead(m)}
	require.Empty(t, s.naive.why, "%s: the independent reader finds damage in %s", name, s.naive.file)
	require.Equal(t, clean, s.naive.manifest.Open == 0, name)
	s.want = naiveState(s.naive.records, s.naive.manifest.History, damageNow.UnixMicro())
	require.NotEmpty(t, s.naive.records)
	return s
}

// unpadded cuts the padding off the open segment.
func unpadded(m storeImage) storeImage {
	m = maps.Clone(m)
	name := naiveName(naiveRead(m).manifest.Open)
	m[name] = append(bytes.TrimRight(m[name], "\n"), '\n')
	return m
}

// slightlyPadded leaves a part of the padding.
func slightlyPadded(m storeImage) storeImage {
	m = maps.Clone(m)
	name := naiveName(naiveRead(m).manifest.Open)
	m[name] = m[name][:3000:3000]
	return m
}

// damageSubjects are stores in all the states in which damage can find them.
func damageSubjects(t *testing.T) (all []damageSubject) {
	k := newStoreMaker(t, 1)
	k.session()
	k.close()
	k.session()
	k.close()
	all = append(all, k.subject("closed", true))

	k.session()
	padded := imageOf(t, k.fs)
	killed := makeSubject(t, "killed", false, unpadded(padded), nil)
	killed.twins = []storeImage{unpadded(twinOf(t)), renumbered(killed.image), otherFirst(killed.image)}
	for _, past := range k.past[len(k.past)-6:] {
		killed.past = append(killed.past, unpadded(past))
	}
	slightly := makeSubject(t, "padded", false, slightlyPadded(padded), nil)
	footed := makeSubject(t, "sealing", false, sealingStore(t, k), nil)
	all = append(all, killed, slightly, footed)
	all = append(all, recoveredStore(t, unpadded(padded)), compactedStore(t), seriesStore(t))
	return all
}

// twinOf is another store with the same history as the killed one.
func twinOf(t *testing.T) storeImage {
	k := newStoreMaker(t, 6)
	for range 2 {
		k.session()
		k.close()
	}
	k.session()
	return imageOf(t, k.fs)
}

// renumbered has the open segment's own lines under the header of another number.
func renumbered(m storeImage) storeImage {
	m = maps.Clone(m)
	n := naiveRead(m).manifest.Open
	was, now := fmt.Sprintf(`"segment":%d,`, n), fmt.Sprintf(`"segment":%d,`, n+1)
	m[naiveName(n)] = resummed(bytes.Replace(m[naiveName(n)], []byte(was), []byte(now), 1))
	return m
}

// otherFirst has an empty segment in the place of the open one, which begins with
// a record that lies elsewhere.
func otherFirst(m storeImage) storeImage {
	m = maps.Clone(m)
	open := naiveRead(m).manifest
	header := fmt.Sprintf(`{"annals":1,"store":"%s","segment":%d,"first":%d}`, open.Store, open.Open, open.Seq-1)
	m[naiveName(open.Open)] = []byte(crcLine(header))
	return m
}

// sealingStore is the store at the moment when its open segment has got its footer,
// and MANIFEST does not list it yet.
func sealingStore(t *testing.T, k *storeMaker) (m storeImage) {
	last := naiveName(naiveRead(imageOf(t, k.fs)).manifest.Open)
	k.fs.Hook(func(op faultfs.Op) {
		if op.Kind == faultfs.Rename && path.Base(op.Path) == "MANIFEST" {
			m = imageOf(t, k.fs.Clone())
		}
	})
	require.NoError(t, k.db.Close())
	k.fs.Hook(nil)
	require.Contains(t, string(m[last]), `{"sealed":`)
	return m
}

// recoveredStore was killed in the middle of a line and opened again: it has a segment
// made from another, and a quarantine.
func recoveredStore(t *testing.T, m storeImage) damageSubject {
	m = maps.Clone(m)
	name := naiveName(naiveRead(m).manifest.Open)
	m[name] = append(bytes.Clone(m[name]), `{"seq":31,"key":"torn`...)
	k := newStoreMaker(t, 2)
	k.fs = m.fs(t)
	k.open()
	k.close()
	return k.subject("recovered", true)
}

// compactedStore has segments in key order and in the order of numbers, one as first
// written, and what an interrupted compaction leaves: an input and a temp file.
func compactedStore(t *testing.T) damageSubject {
	k := newStoreMaker(t, 3)
	k.session()
	k.close()
	k.session()
	input := naiveName(1)
	left := imageOf(t, k.fs)[input]
	k.compact()
	k.close()
	k.open()
	k.apply(func(b *annals.Batch) { b.Put("a", []byte("9")) })
	k.apply(func(b *annals.Batch) { b.Append("s", []byte("9"), annals.At(damageNow)) })
	k.close()
	s := k.subject("compacted", true)
	s.image[input] = left
	s.image[".MANIFEST.0123456789abcdef.tmp"] = s.image["MANIFEST"][:100]
	return s
}

// seriesStore has two segments that hold nothing but samples, so that damage in one
// leaves the store open for all that is not in it.
func seriesStore(t *testing.T) damageSubject {
	k := newStoreMaker(t, 4)
	for i := range 2 {
		k.open()
		for j := range 3 {
			k.apply(func(b *annals.Batch) {
				b.Append("s", fmt.Appendf(nil, "%d", j), annals.At(damageNow))
				b.Append(fmt.Sprint("only ", i), []byte("1"), annals.At(damageNow))
			})
		}
		k.apply(func(b *annals.Batch) { b.Put("k", fmt.Appendf(nil, "%d", i)) })
		k.compact()
		k.close()
	}
	return k.subject("series", true)
}

// storeState is what a reader sees of a store.
type storeState struct {
	keys    map[string]string   // value, number and expiry of each key
	samples map[string][]string // of each series
	watched []string            // the records from the beginning of history on
	errs    []error             // met on the way
}

// dry is a context that ends when somebody waits for it: it ends a loop over
// Watch when there is nothing more to show.
type dry struct {
	context.Context
	waited bool
}

var already = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func (d *dry) Done() <-chan struct{} {
	d.waited = true
	return already
}

func (d *dry) Err() error {
	if d.waited {
		return context.Canceled
	}
	return nil
}

// readable is a Store or a Reader.
type readable interface {
	Snapshot() *annals.Snapshot
	Watch(context.Context, uint64) iter.Seq2[annals.Record, error]
	Get(string) ([]byte, error)
}

// readStore reads all that there is in every way, and the series and keys of want
// whether they are listed or not.
func readStore(r readable, want storeState) storeState {
	st := storeState{keys: map[string]string{}, samples: map[string][]string{}}
	snapshot := r.Snapshot()
	defer snapshot.Close()
	note := func(err error) { st.errs = append(st.errs, err) }
	for e, err := range snapshot.Scan(annals.Range{}) {
		if err != nil {
			note(err)
			continue
		}
		expires := int64(0)
		if !e.Expires.IsZero() {
			expires = e.Expires.UnixMicro()
		}
		st.keys[e.Key] = fmt.Sprintf("%d %d %q", e.Seq, expires, e.Value)
		if v, err := r.Get(e.Key); err != nil || !bytes.Equal(v, e.Value) {
			note(fmt.Errorf("Get of %q: %q, %w", e.Key, v, err))
		}
	}
	series := map[string]bool{}
	for name := range want.samples {
		series[name] = true
	}
	for s, err := range snapshot.Series() {
		if err != nil {
			note(err)
		}
		series[s.Name] = true
	}
	for name := range series {
		for s, err := range snapshot.Samples(name, annals.Window{}) {
			if err != nil {
				note(err)
				continue
			}
			st.samples[name] = append(st.samples[name], fmt.Sprintf("%d %d %q", s.Seq, s.At.UnixMicro(), s.Value))
		}
	}
	for rec, err := range r.Watch(&dry{Context: context.Background()}, 0) {
		if err != nil && !errors.Is(err, context.Canceled) {
			note(err)
		} else if err == nil {
			st.watched = append(st.watched, fmt.Sprintf("%d %q %v", rec.Seq, rec.Key+rec.Series, rec.More))
		}
	}
	return st
}
