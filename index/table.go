package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"runtime"
	"runtime/debug"
	"slices"
	"sort"
	"strings"
	"sync/atomic"
)

// Table is a checkpoint of an index that is used in place: entries in key order,
// and a hash table of the keys, in pages that are checked when they are first
// used. It is safe for concurrent use, and holds almost nothing in memory.
type Table struct {
	data     []byte
	t        trailer
	segments []uint64
	state    []byte
	checked  []atomic.Uint64 // a bit for each page
	gone     map[uint64]bool // segments that no longer live; written before the table is used
}

// trailer is the last page of a table.
type trailer struct {
	mark                           uint64
	entries                        uint64
	dataPages, innerEnd, hashPages uint32
	stateBytes                     uint64
	stateSum                       uint32
}

const tableMagic = "annals index 1\n"

func (t *trailer) append(b []byte) []byte {
	b = append(b, 0, 0, 0)
	b = append(b, tableMagic...)
	for _, v := range []uint64{t.mark, t.entries, uint64(t.dataPages), uint64(t.innerEnd), uint64(t.hashPages), t.stateBytes, uint64(t.stateSum)} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

// maxState bounds the state, which is copied into memory: that of a log of about a
// terabyte.
const maxState = 512 << 20

func stateSum(state []byte, mark uint64) uint32 {
	return crc32.Update(uint32(mark), crc32.IEEETable, state)
}

// TableError says where a table is damaged, or why bytes are no table.
type TableError struct {
	Offset int64 // of the page
	Reason string
}

func (e *TableError) Error() string {
	return fmt.Sprintf("a table of the index is damaged at offset %d: %s", e.Offset, e.Reason)
}

func damaged(page uint32, reason string) *TableError {
	return &TableError{Offset: int64(page) * PageSize, Reason: reason}
}

// OpenTable takes the bytes of a whole table, which must stay as they are as long
// as the Table is used. They may be a mapped file: a fault on reading them becomes
// an error. Only the trailer and the state are checked here.
func OpenTable(data []byte) (t *Table, err error) {
	defer catch(t, &err, debug.SetPanicOnFault(true))
	if len(data) < PageSize || len(data)%PageSize != 0 {
		return nil, &TableError{Reason: fmt.Sprintf("it is %d bytes long", len(data))}
	}
	t = &Table{data: data}
	last := data[len(data)-PageSize:]
	b, ok := strings.CutPrefix(string(last[pageHead:pageBytes]), tableMagic)
	if !ok {
		return nil, &TableError{Offset: int64(len(data) - PageSize), Reason: "its last page is not a trailer"}
	}
	var v [7]uint64
	for i := range v {
		v[i] = binary.LittleEndian.Uint64([]byte(b[8*i:]))
	}
	t.t = trailer{v[0], v[1], uint32(v[2]), uint32(v[3]), uint32(v[4]), v[5], uint32(v[6])}
	pages := uint64(len(data) / PageSize)
	statePages := (t.t.stateBytes + PageSize - 1) / PageSize
	if !checkPage(last, lastPage, uint32(pages-1), t.t.mark) {
		return nil, damaged(uint32(pages-1), "its trailer's checksum is wrong")
	}
	if t.t.dataPages > t.t.innerEnd || t.t.stateBytes > uint64(len(data)) || uint64(t.t.innerEnd)+uint64(t.t.hashPages)+1+statePages+1 != pages {
		return nil, damaged(uint32(pages-1), fmt.Sprintf("its parts do not add up to %d pages", pages))
	}
	if t.t.stateBytes > maxState {
		return nil, damaged(uint32(pages-1), fmt.Sprintf("a state of %d bytes", t.t.stateBytes))
	}
	at := (uint64(t.t.innerEnd) + uint64(t.t.hashPages) + 1) * PageSize
	if stateSum(data[at:at+t.t.stateBytes], t.t.mark) != t.t.stateSum {
		return nil, &TableError{Offset: int64(at), Reason: "its state's checksum is wrong"}
	}
	t.state = slices.Clone(data[at : at+t.t.stateBytes])
	t.checked = make([]atomic.Uint64, pages/64+1)
	return t, t.readSegments()
}

func (t *Table) readSegments() error {
	n, k := binary.Uvarint(t.state)
	for t.state = t.state[max(k, 0):]; k > 0 && uint64(len(t.segments)) < n; t.state = t.state[max(k, 0):] {
		var s uint64
		s, k = binary.Uvarint(t.state)
		t.segments = append(t.segments, s)
	}
	if k <= 0 {
		return damaged(t.t.innerEnd+t.t.hashPages+1, "its list of segments can't be read")
	}
	return nil
}

// catch turns a fault on mapped memory into an error, which is what a file gives
// that was cut, or lies on a bad disk: defer catch(t, &err, debug.SetPanicOnFault(true)).
// Until then the table is in use, and its memory must stay.
func catch(t *Table, err *error, before bool) {
	debug.SetPanicOnFault(before)
	runtime.KeepAlive(t)
	switch r := recover().(type) {
	case nil:
	case interface{ Addr() uintptr }:
		*err = &TableError{Reason: "it can't be read"}
	default:
		panic(r)
	}
}

// State returns what was given to Finish, until an index has taken it in.
func (t *Table) State() []byte { return t.state }

// Len is the number of entries.
func (t *Table) Len() int { return int(t.t.entries) }

// Segments are those that entries point into.
func (t *Table) Segments() []uint64 { return t.segments }

// forget makes entries in a segment count for nothing.
func (t *Table) forget(segment uint64) {
	if t.gone == nil {
		t.gone = map[uint64]bool{}
	}
	t.gone[segment] = true
}

func (t *Table) isGone(segment uint64) bool { return t.gone != nil && t.gone[segment] }

// page returns a page that is whole.
func (t *Table) page(n uint32, kind byte) ([]byte, error) {
	if uint64(n) >= uint64(len(t.data)/PageSize) {
		return nil, damaged(n, "there is no such page")
	}
	p := t.data[int(n)*PageSize:][:PageSize]
	word, bit := &t.checked[n/64], uint64(1)<<(n%64)
	if word.Load()&bit == 0 {
		if !checkPage(p, kind, n, t.t.mark) {
			return nil, damaged(n, "a page's checksum is wrong")
		}
		word.Or(bit)
	}
	return p, nil
}

// Check reads all pages.
func (t *Table) Check() (err error) {
	defer catch(t, &err, debug.SetPanicOnFault(true))
	for n := range t.t.innerEnd + t.t.hashPages + 1 {
		kind := byte(hashPage)
		if n < t.t.dataPages {
			kind = dataPage
		} else if n < t.t.innerEnd {
			kind = innerPage
		}
		if _, err := t.page(n, kind); err != nil {
			return err
		}
	}
	return nil
}

// Get returns the entry of a key.
func (t *Table) Get(key string) (e Entry, ok bool, err error) {
	if t.t.entries == 0 || len(key) > maxTableKey {
		return Entry{}, false, nil
	}
	defer catch(t, &err, debug.SetPanicOnFault(true))
	n, first, print := place(hash(key), t.t.hashPages)
	for ; n <= t.t.hashPages; n++ {
		p, err := t.page(t.t.innerEnd+n, hashPage)
		if err != nil {
			return Entry{}, false, err
		}
		for i := range slotsPerPage {
			s := slotAt(p, (first+i)%slotsPerPage)
			if s.page == 0 {
				break
			}
			if s.print == print {
				if e, ok, err := t.at(s, key); ok || err != nil {
					return e, ok, err
				}
			}
		}
		if p[overflowAt] == 0 {
			break
		}
	}
	return Entry{}, false, nil
}

// at returns the entry that a slot names, if it is the key's.
func (t *Table) at(s slot, key string) (e Entry, ok bool, err error) {
	p, err := t.page(s.page-1, dataPage)
	if err != nil {
		return Entry{}, false, err
	}
	if int(s.offset) < pageBytes {
		found, ordinal, _, whole := parseEntry(p[s.offset:pageBytes], &e)
		if whole && string(found) != key {
			return Entry{}, false, nil
		}
		if whole && ordinal < uint64(len(t.segments)) {
			e.Key, e.Segment = key, t.segments[ordinal]
			return e, true, nil
		}
	}
	return Entry{}, false, damaged(s.page-1, "a slot leads to no entry here")
}

// find returns the data page in which a key is, if it is in the table.
func (t *Table) find(key string) (page uint32, err error) {
	defer catch(t, &err, debug.SetPanicOnFault(true))
	if t.t.innerEnd == t.t.dataPages {
		return 0, nil
	}
	for n := t.t.innerEnd - 1; n >= t.t.dataPages; {
		p, err := t.page(n, innerPage)
		if err != nil {
			return 0, err
		}
		// The last item whose key is not above ours, or else the first.
		whole := true
		i := sort.Search(pageCount(p), func(i int) bool {
			k, _, ok := innerAt(p, i)
			whole = whole && ok
			return string(k) > key
		})
		_, child, ok := innerAt(p, max(i-1, 0))
		if !ok || !whole || child >= n {
			return 0, damaged(n, "a page that does not lead to others")
		}
		n, page = child, child
	}
	return page, nil
}

// innerAt returns an item of an inner page.
func innerAt(p []byte, i int) (key []byte, child uint32, ok bool) {
	place := pageBytes - 2*(i+1)
	if place < pageHead {
		return nil, 0, false
	}
	at := int(binary.LittleEndian.Uint16(p[place:]))
	if at >= pageBytes {
		return nil, 0, false
	}
	n, k := binary.Uvarint(p[at:pageBytes])
	if k <= 0 || n > maxTableKey || at+k+int(n)+4 > pageBytes {
		return nil, 0, false
	}
	return p[at+k:][:n], binary.LittleEndian.Uint32(p[at+k+int(n):]), true
}

var (
	errEntry   = errors.New("an entry that can't be read")
	errOrdinal = errors.New("an entry in no segment")
)

// decode appends the first n of the entries in the text of a page to list, and returns
// how long they are. Their keys point into the text. After an error list has those
// before it.
func (t *Table) decode(list []Entry, text string, n int) (_ []Entry, size int, err error) {
	list = slices.Grow(list, n)
	b := text
	for range n {
		list = list[:len(list)+1]
		e := &list[len(list)-1]
		key, ordinal, rest, ok := parseEntry(b, e)
		if !ok {
			err = errEntry
		} else if ordinal >= uint64(len(t.segments)) {
			err = errOrdinal
		}
		if err != nil {
			return list[:len(list)-1], len(text) - len(b), err
		}
		e.Key, e.Segment = key, t.segments[ordinal]
		b = rest
	}
	return list, len(text) - len(b), nil
}
