package annals

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/annalsdb/annals/compact"
	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

// make fills dest. A file that says so stands there from before the first segment
// until MANIFEST is durable; after an error all is removed again, that file last.
func (r *repairer) make() (err error) {
	_, err = r.fs.Lstat(r.dest)
	fresh := errors.Is(err, fs.ErrNotExist)
	m := &maker{repairer: r}
	if fresh {
		m.made = append(m.made, r.dest)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.undo())
		}
	}()
	if err := replace.MkdirAll(r.fs, r.dest, 0o700); err != nil {
		return err
	}
	marker := filepath.Join(r.dest, unfinishedName)
	if err := m.mark(marker); err != nil {
		return err
	}
	if err := m.quarantine(); err != nil {
		return err
	}
	if err := m.segments(); err != nil {
		return err
	}
	r.report.Records = uint64(len(r.saved))
	m.made = append(m.made, filepath.Join(r.dest, manifestName))
	if err := writeManifest(r.fs, r.dest, &m.manifest); err != nil {
		return err
	}
	if err := r.fs.Remove(marker); err != nil {
		return err
	}
	return r.fs.SyncDir(r.dest)
}

// maker makes the new store.
type maker struct {
	*repairer
	manifest segment.Manifest // the new one
	made     []string         // dest, if it was missing, and what is in it

	keys    repairChunk
	samples *compact.Writer // nil: the next sample begins one
}

// repairChunk gathers the lines of keys for one segment, which has them in order.
type repairChunk struct {
	lines []byte
	list  []chunkLine
	from  map[uint64]bool // the segments that they come from
}

// chunkLine is a line in a chunk.
type chunkLine struct {
	name       string
	seq        uint64
	begin, end int
}

// chunkSize is the size of the segments that Repair writes. One of keys is held in
// memory.
const chunkSize = 16 << 20

func (m *maker) undo() (err error) {
	if m.samples != nil {
		err = m.samples.Discard()
	}
	for _, path := range slices.Backward(m.made) {
		if e := m.fs.Remove(path); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// mark makes the file that says that dest is no store yet.
func (m *maker) mark(path string) error {
	m.made = append(m.made, path)
	const text = "annals repair is at work here, or was interrupted: this is no store.\nIf nobody is, remove this directory and repair again.\n"
	return replace.WriteFile(path, []byte(text), replace.On(m.fs))
}

// quarantine keeps what is no good line, and MANIFEST if it is not believed.
func (m *maker) quarantine() error {
	dir := filepath.Join(m.dest, quarantineName)
	kept := 0
	keep := func(path string, file replace.File, q Quarantined) error {
		if kept++; kept == 1 {
			m.made = append(m.made, dir)
			if err := m.fs.Mkdir(dir, 0o700); err != nil {
				return err
			}
		}
		m.made = append(m.made, path)
		m.report.Kept = append(m.report.Kept, q)
		return m.copyRegion(file, q.Offset, q.Bytes, path)
	}
	if !m.trusted {
		if err := m.keepManifest(filepath.Join(dir, manifestName), keep); err != nil {
			return err
		}
	}
	for i, f := range m.files {
		for _, b := range m.regions(i) {
			file, err := m.file(i)
			if err != nil {
				return err
			}
			path := filepath.Join(dir, fmt.Sprintf("%020d-%d.bad", f.name, b.offset))
			if err := keep(path, file, Quarantined{Path: path, Segment: f.name, Offset: b.offset, Bytes: b.size, Reason: b.reason}); err != nil {
				return err
			}
		}
	}
	if kept == 0 {
		return nil
	}
	return m.fs.SyncDir(dir)
}

func (m *maker) keepManifest(path string, keep func(string, replace.File, Quarantined) error) (err error) {
	file, err := m.source.OpenFile(m.path(manifestName), os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, replace.ErrNotRegular) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	return keep(path, file, Quarantined{Path: path, Bytes: info.Size(), Reason: "MANIFEST was not believed"})
}

// regions returns what is to be kept of a file: its bad bytes, and good lines whose
// number another line has.
func (m *maker) regions(i int) (list []badRegion) {
	const most = 1000 // files; from the last one on, all is kept
	f := m.files[i]
	if f.out != "" {
		return nil // it is there as a whole, and no part of the store
	}
	list = slices.Clone(f.bad)
	for _, d := range m.doubles {
		if int(d.file) == i {
			list = append(list, badRegion{offset: d.offset, size: int64(d.bytes()), reason: "another line has the same number"})
		}
	}
	slices.SortFunc(list, func(a, b badRegion) int {
		return cmp.Or(cmp.Compare(a.offset, b.offset), cmp.Compare(b.size, a.size))
	})
	end := int64(0)
	list = slices.DeleteFunc(list, func(b badRegion) bool {
		within := b.offset+b.size <= end || b.size == 0
		end = max(end, b.offset+b.size)
		return within
	})
	if len(list) > most {
		list = list[:most]
		list[most-1].size = f.size - list[most-1].offset
	}
	return list
}

// copyRegion copies a part of a file to a new one. Zeros become a hole: a sparse
// file may be longer than the disk.
func (m *maker) copyRegion(file replace.File, offset, size int64, path string) (err error) {
	to, err := m.fs.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if err := to.Truncate(size); err != nil {
		return err
	}
	buf := make([]byte, min(size, 256<<10))
	zeros := make([]byte, len(buf))
	for at := int64(0); at < size; {
		if next := file.(*sourceFile).NextData(offset + at); next > offset+at {
			at = next - offset
			continue
		}
		n, err := file.ReadAt(buf[:min(int64(len(buf)), size-at)], offset+at)
		if n == 0 {
			return fmt.Errorf("annals: copying to %q: %w", path, cmp.Or(err, io.ErrUnexpectedEOF))
		}
		if !bytes.Equal(buf[:n], zeros[:n]) {
			if _, err := to.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
	}
	return to.Sync()
}

// segments writes the records in the order of their numbers: keys to segments that
// each have them in the order of keys, samples to others.
func (m *maker) segments() (err error) {
	m.manifest = m.repairer.manifest
	n := &m.manifest
	n.Open, n.Sealed = 0, nil
	n.Generation = min(n.Generation, maxNumber) + 1
	n.Seq = min(n.Seq, maxNumber+1)
	n.Next = min(n.Next, maxNumber+1)
	n.History = n.Seq
	m.keys.from = map[uint64]bool{}
	samplesFrom := m.sampleSources()
	var line []byte
	for i := range m.saved {
		s := &m.saved[i]
		if line, err = m.line(s, line); err != nil {
			return err
		}
		v, err := segment.DecodeLine(line)
		if err == nil && v.Seq != s.seq {
			err = errors.New("another line is there")
		}
		if f, ok := m.open[int(s.file)].(*sourceFile); err != nil && ok && f.failed != nil {
			return fmt.Errorf("annals: %q can't be read any more: %w", f.path, f.failed)
		}
		if err != nil {
			return fmt.Errorf("annals: %q changes while it is repaired: at offset %d: %w", m.files[s.file].path, s.offset, err)
		}
		if s.size&isSample != 0 {
			err = m.sample(s.seq, line, samplesFrom)
		} else {
			err = m.key(&v, m.files[s.file].number, line)
		}
		if err != nil {
			return err
		}
	}
	if err := m.endKeys(); err != nil {
		return err
	}
	if err := m.endSamples(); err != nil {
		return err
	}
	slices.SortFunc(n.Sealed, func(a, b segment.Footer) int { return cmp.Compare(a.Segment, b.Segment) })
	return m.fs.SyncDir(m.dest)
}

// sampleSources returns the segments that samples come from.
func (m *maker) sampleSources() []uint64 {
	from := map[uint64]bool{}
	for i := range m.saved {
		if s := &m.saved[i]; s.size&isSample != 0 {
			from[m.files[s.file].number] = true
		}
	}
	return slices.Sorted(maps.Keys(from))
}

// begin makes the next segment.
func (m *maker) begin(order segment.Order, from []uint64) (*compact.Writer, error) {
	if err := m.ctx.Err(); err != nil {
		return nil, err
	}
	w, err := compact.NewWriter(m.fs, m.dest, segment.Header{Store: m.manifest.Store, Segment: m.manifest.Next, From: from, Order: order})
	if err != nil {
		return nil, err
	}
	m.manifest.Next++
	m.made = append(m.made, w.Path())
	return w, nil
}

func (m *maker) end(w *compact.Writer) error {
	footer, err := w.Finish()
	if err != nil {
		return errors.Join(err, w.Discard())
	}
	m.manifest.Sealed = append(m.manifest.Sealed, footer)
	return nil
}

func (m *maker) sample(seq uint64, line []byte, from []uint64) (err error) {
	if m.samples == nil {
		if m.samples, err = m.begin(segment.BySeq, from); err != nil {
			return err
		}
	}
	if _, err := m.samples.Add(seq, line); err != nil {
		return errors.Join(err, m.samples.Discard())
	}
	if m.samples.Size() < chunkSize {
		return nil
	}
	return m.endSamples()
}

func (m *maker) endSamples() error {
	if m.samples == nil {
		return nil
	}
	w := m.samples
	m.samples = nil
	return m.end(w)
}

func (m *maker) key(v *segment.View, number uint64, line []byte) error {
	c := &m.keys
	begin := len(c.lines)
	c.lines = append(c.lines, line...)
	c.list = append(c.list, chunkLine{v.Name(), v.Seq, begin, len(c.lines)})
	c.from[number] = true
	if len(c.lines) < chunkSize {
		return nil
	}
	return m.endKeys()
}

func (m *maker) endKeys() error {
	c := &m.keys
	if len(c.list) == 0 {
		return nil
	}
	w, err := m.begin(segment.ByKey, slices.Sorted(maps.Keys(c.from)))
	if err != nil {
		return err
	}
	slices.SortFunc(c.list, func(a, b chunkLine) int { return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.seq, b.seq)) })
	for _, l := range c.list {
		if _, err := w.Add(l.seq, c.lines[l.begin:l.end]); err != nil {
			return errors.Join(err, w.Discard())
		}
	}
	c.lines, c.list = c.lines[:0], c.list[:0]
	clear(c.from)
	return m.end(w)
}
