package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// TableFile is where a table is written to. It is read again while the hash pages
// are made.
type TableFile interface {
	io.WriterAt
	io.ReaderAt
}

// TableWriter writes a table: entries in key order, then the state.
type TableWriter struct {
	file     TableFile
	mark     uint64
	ordinals map[uint64]uint64 // of segments, by number
	segments []uint64

	page    []byte // the data page that is being filled
	count   int    // of entries in it
	first   string // its first key
	last    string
	entries uint64
	pages   uint32      // data pages that are written
	level   []innerItem // the first key of each of them
	out     []byte      // pages that are not yet in the file
	written int64

	partition uint32 // how many hash pages are made at a time
}

type innerItem struct {
	key   string
	child uint32
}

// hashPartition is how many hash pages are made at a time, which bounds the
// memory that it takes: 16 MiB.
const hashPartition = 4096

// NewTableWriter begins a table in an empty file. mark should differ from that of
// every table that was in a file of the same name.
func NewTableWriter(file TableFile, mark uint64) *TableWriter {
	return &TableWriter{file: file, mark: mark, ordinals: map[uint64]uint64{}, page: make([]byte, pageHead, PageSize), partition: hashPartition}
}

// Fits tells whether a key can be in a table.
func Fits(key string) bool { return len(key) <= maxTableKey }

// Add writes the next entry. Its key is above the one before and Fits.
func (w *TableWriter) Add(e *Entry) error {
	if !Fits(e.Key) || w.entries > 0 && e.Key <= w.last {
		return fmt.Errorf("index: key %q can't follow %q in a table", e.Key, w.last)
	}
	ordinal, known := w.ordinals[e.Segment]
	if !known {
		ordinal = uint64(len(w.segments))
		w.ordinals[e.Segment] = ordinal
		w.segments = append(w.segments, e.Segment)
	}
	before := len(w.page)
	w.page = appendEntry(w.page, e, ordinal)
	if len(w.page) > pageBytes {
		w.page = w.page[:before]
		if err := w.endPage(); err != nil {
			return err
		}
		w.page = appendEntry(w.page, e, ordinal)
	}
	if w.count == 0 {
		w.first = e.Key
	}
	w.count++
	w.entries++
	w.last = e.Key
	return nil
}

func (w *TableWriter) endPage() error {
	if w.count == 0 {
		return nil
	}
	w.level = append(w.level, innerItem{w.first, w.pages})
	err := w.emit(w.page, dataPage, w.count)
	w.page, w.count = w.page[:pageHead], 0
	return err
}

// emit writes one page behind those before it.
func (w *TableWriter) emit(content []byte, kind byte, count int) error {
	n := len(w.out)
	w.out = append(w.out, make([]byte, PageSize)...)
	copy(w.out[n:], content)
	sealPage(w.out[n:], kind, count, w.pages, w.mark)
	w.pages++
	if len(w.out) >= 1<<20 {
		return w.flush()
	}
	return nil
}

func (w *TableWriter) flush() error {
	_, err := w.file.WriteAt(w.out, w.written)
	w.written += int64(len(w.out))
	w.out = w.out[:0]
	return err
}

// Finish writes what belongs behind the entries, and state, and returns the size
// of the file. It is not synced.
func (w *TableWriter) Finish(state []byte) (size int64, err error) {
	if err := w.endPage(); err != nil {
		return 0, err
	}
	t := trailer{mark: w.mark, entries: w.entries, dataPages: w.pages}
	if err := w.inner(); err != nil {
		return 0, err
	}
	t.innerEnd = w.pages
	t.hashPages = uint32(w.entries/fullSlots) + 1
	for err = errCrowded; errors.Is(err, errCrowded); t.hashPages += t.hashPages/4 + 1 {
		w.pages = t.innerEnd
		if err = w.flush(); err == nil {
			err = w.hashes(&t)
		}
		if err == nil {
			break
		}
	}
	if err != nil {
		return 0, err
	}
	whole := w.segmentList()
	whole = append(whole, state...)
	t.stateBytes, t.stateSum = uint64(len(whole)), stateSum(whole, w.mark)
	w.out = append(w.out, whole...)
	w.out = append(w.out, make([]byte, (PageSize-len(whole)%PageSize)%PageSize)...)
	w.pages += uint32((len(whole) + PageSize - 1) / PageSize)
	if err := w.emit(t.append(nil), lastPage, 0); err != nil {
		return 0, err
	}
	return int64(w.pages) * PageSize, w.flush()
}

func (w *TableWriter) segmentList() (b []byte) {
	b = binary.AppendUvarint(b, uint64(len(w.segments)))
	for _, n := range w.segments {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

// inner writes the levels above the data pages. A page of them holds the offsets
// of its items at its end, for a binary search.
func (w *TableWriter) inner() error {
	for level := w.level; len(level) > 1; {
		var above []innerItem
		for len(level) > 0 {
			content := make([]byte, pageHead, PageSize)
			var offsets []int
			for len(level) > 0 {
				item := level[0]
				need := binary.MaxVarintLen64 + len(item.key) + 5 + 2*(len(offsets)+1)
				if len(offsets) > 0 && len(content)+need > pageBytes {
					break
				}
				if len(offsets) == 0 {
					above = append(above, innerItem{item.key, w.pages})
				}
				offsets = append(offsets, len(content))
				content = binary.AppendUvarint(content, uint64(len(item.key)))
				content = append(content, item.key...)
				content = binary.LittleEndian.AppendUint32(content, item.child)
				level = level[1:]
			}
			content = content[:pageBytes]
			for i, off := range offsets {
				binary.LittleEndian.PutUint16(content[pageBytes-2*(i+1):], uint16(off))
			}
			if err := w.emit(content, innerPage, len(offsets)); err != nil {
				return err
			}
		}
		level = above
	}
	w.level = nil
	return nil
}

var errCrowded = errors.New("the hash pages are too full")

// hashes writes the hash pages, some at a time. A page that is full goes on in
// the next one; behind the last there is one more for that.
func (w *TableWriter) hashes(t *trailer) error {
	var spill []hashed // what did not fit into the part before
	for from := uint32(0); from <= t.hashPages; from += w.partition {
		to := min(from+w.partition, t.hashPages+1)
		pages := make([]byte, int(to-from)*PageSize)
		for i := 0; i < len(pages); i += PageSize {
			pages[i] = 0 // see newSlots
		}
		late := spill
		spill = nil
		add := func(h hashed, page uint32) {
			for ; page < to; page++ {
				if putHash(pages[int(page-from)*PageSize:][:PageSize], h) {
					return
				}
			}
			spill = append(spill, h)
		}
		for _, h := range late {
			add(h, from)
		}
		var list []placed
		addAll := func() {
			sum := uint64(0)
			for _, h := range list { // the processor fetches them together, see levels.fetch
				sum += uint64(pages[int(h.page-from)*PageSize+slotsAt+h.first*slotBytes])
			}
			fetched.Store(sum)
			for _, h := range list {
				add(h.hashed, h.page)
			}
			list = list[:0]
		}
		if err := w.eachKey(t.dataPages, func(key []byte, page uint32, offset int) {
			p, first, print := place(hash(key), t.hashPages)
			if p < from || p >= to {
				return
			}
			if list = append(list, placed{hashed{first, slot{page + 1, uint16(offset), print}}, p}); len(list) == owedKeys {
				addAll()
			}
		}); err != nil {
			return err
		}
		addAll()
		for i := range int(to - from) {
			p := pages[i*PageSize:][:PageSize]
			sealPage(p, hashPage, 0, w.pages, w.mark)
			w.pages++
		}
		w.out = pages
		if err := w.flush(); err != nil {
			return err
		}
		w.out = nil
	}
	if len(spill) > 0 {
		w.written -= int64(t.hashPages+1) * PageSize
		return errCrowded
	}
	return nil
}

// hashed is a key on its way into the hash pages.
type hashed struct {
	first int
	slot
}

// placed is one of which the page is known.
type placed struct {
	hashed
	page uint32
}

// putHash puts a key into a page, or marks the page as one that goes on.
func putHash(p []byte, h hashed) bool {
	for i := range slotsPerPage {
		at := (h.first + i) % slotsPerPage
		if slotAt(p, at).page == 0 {
			putSlot(p, at, h.slot)
			return true
		}
	}
	p[overflowAt] = 1
	return false
}

// eachKey reads the data pages again.
func (w *TableWriter) eachKey(dataPages uint32, fn func(key []byte, page uint32, offset int)) error {
	buf := make([]byte, 256*PageSize)
	for n := uint32(0); n < dataPages; n += 256 {
		part := buf[:min(256, int(dataPages-n))*PageSize]
		if _, err := w.file.ReadAt(part, int64(n)*PageSize); err != nil && err != io.EOF {
			return err
		}
		for i := uint32(0); len(part) > 0; i++ {
			p := part[:PageSize]
			part = part[PageSize:]
			if !checkPage(p, dataPage, n+i, w.mark) {
				return damaged(n+i, "this page is not what was written")
			}
			var e Entry
			rest := p[pageHead:pageBytes]
			for range pageCount(p) {
				offset := pageBytes - len(rest)
				key, _, next, ok := parseEntry(rest, &e)
				if !ok {
					return damaged(n+i, "this page is not what was written")
				}
				fn(key, n+i, offset)
				rest = next
			}
		}
	}
	return nil
}
