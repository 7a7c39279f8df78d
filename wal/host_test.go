package wal

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

const (
	dir     = "data"
	storeID = "0123456789abcdef0123456789abcdef"
)

// host is a store around a log: it keeps what it is told, and holds every word of
// the log against what lies on the disk.
type host struct {
	*testing.T
	*disk
	log  *Log
	sync time.Duration
	lax  bool         // large segments are not read again
	now  atomic.Int64 // the store's time

	mu        sync.Mutex
	number    uint64
	segments  map[uint64]*Segment
	listed    map[uint64]*segment.Footer // MANIFEST: nil for the open segment
	seq       uint64                     // of MANIFEST
	queued    []*Commit
	visible   []*Commit
	places    map[uint64]*Record // of visible records
	dropped   []*Commit
	published uint64
	failed    []error
}

// start returns a log on an empty disk, with segments of the given size.
func start(t *testing.T, sync time.Duration, segmentSize int64) *host {
	h := &host{T: t, disk: newDisk(t), sync: sync, segments: map[uint64]*Segment{}, listed: map[uint64]*segment.Footer{}, seq: 1, places: map[uint64]*Record{}}
	h.log = New(Options{
		FS: h.disk, Dir: dir, Store: storeID, SegmentSize: segmentSize, Sync: sync, Seq: 1, Now: h.now.Load, Host: h,
	})
	return h
}

func (h *host) NewSegment() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.number++
	return h.number
}

func (h *host) Opened(s *Segment) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.segments[s.Number] != nil {
		h.Errorf("segment %d opened twice", s.Number)
	}
	h.segments[s.Number] = s
}

// Install checks that what it lists would survive a power cut.
func (h *host) Install(sealed *segment.Footer, open *Segment, seq uint64) error {
	var what []string
	if sealed != nil {
		what = append(what, fmt.Sprint("sealed ", sealed.Segment))
		h.checkSealed(sealed)
	}
	if open != nil {
		what = append(what, fmt.Sprint("open ", open.Number))
		_, kept := h.contents(open.Number)
		header := segment.Header{Store: storeID, Segment: open.Number, First: open.First}
		if string(kept) != string(header.AppendLine(nil)) {
			h.Errorf("segment %d listed as open with %q", open.Number, kept)
		}
		line := make([]byte, len(kept))
		if _, err := open.ReadAt(line, 0); err != nil || open.Size() != int64(len(kept)) {
			h.Errorf("segment %d listed as open, and readers find %d bytes: %v", open.Number, open.Size(), err)
		}
	}
	if _, err := h.begin("install", strings.Join(what, " ")); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if seq < h.seq {
		h.Errorf("MANIFEST's seq goes from %d back to %d", h.seq, seq)
	}
	h.seq = seq
	for n, f := range h.listed {
		if f == nil {
			delete(h.listed, n)
		}
	}
	if sealed != nil {
		h.listed[sealed.Segment] = sealed
	}
	if open != nil {
		h.listed[open.Number] = nil
	}
	return nil
}

func (h *host) checkSealed(f *segment.Footer) {
	if h.lax {
		return
	}
	data, kept := h.contents(f.Segment)
	for _, b := range [][]byte{data, kept} {
		problems, err := segment.CheckSealed(bytes.NewReader(b), int64(len(b)), segment.Name(f.Segment), storeID, *f, nil)
		if err != nil || len(problems) > 0 {
			h.Errorf("segment %d is sealed badly: %v %v", f.Segment, err, problems)
		}
	}
}

func (h *host) Queued(c *Commit) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.queued = append(h.queued, c)
}

// Visible checks that commits come in order and, under SyncAlways, that a power
// cut at this moment would leave them.
func (h *host) Visible(cs []*Commit) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range cs {
		if n := len(h.visible); n > 0 && h.visible[n-1].last() >= c.first() {
			h.Errorf("%d visible behind %d", c.first(), h.visible[n-1].last())
		}
		h.visible = append(h.visible, c)
		for i := range c.Records {
			h.places[c.Records[i].Seq] = &c.Records[i]
		}
		if c.done.Load() {
			h.Errorf("%d: the writer was told before the commit is visible", c.first())
		}
		if h.sync != 0 {
			continue
		}
		for i := range c.Records {
			r := &c.Records[i]
			if _, open := h.listed[r.Segment]; !open {
				h.Errorf("%d visible in segment %d, which is not listed", r.Seq, r.Segment)
			}
			if _, kept := h.line(r); !isLine(kept, r) {
				h.Errorf("%d visible but not durable, on the disk is %q", r.Seq, kept)
			}
		}
	}
}

// isLine tells whether a line is that of the record.
func isLine(line []byte, r *Record) bool {
	v, err := segment.DecodeLine(line)
	return err == nil && v.Seq == r.Seq && v.Name() == r.Name && len(line) == r.Len
}

func (h *host) Dropped(cs []*Commit) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dropped = append(h.dropped, cs...)
}

// Published checks that what others may see would survive a power cut, or under
// SyncNever lies in the file.
func (h *host) Published(seq uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if seq < h.published {
		h.Errorf("published goes from %d back to %d", h.published, seq)
	}
	for n := h.published + 1; n <= seq; n++ {
		r := h.places[n]
		if r == nil {
			h.Errorf("%d published, but it is not visible", n)
			continue
		}
		data, kept := h.line(r)
		if h.sync < 0 {
			kept = data
		}
		if !isLine(kept, r) {
			h.Errorf("%d published, but on the disk is %q", n, kept)
		}
	}
	h.published = seq
}

func (h *host) Failed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failed = append(h.failed, err)
}

// records returns the name of every record that the next Open would find, after a
// power cut or, if not afterCut, after the process was killed.
func (h *host) records(afterCut bool) map[uint64]string {
	h.mu.Lock()
	listed := maps.Clone(h.listed)
	h.mu.Unlock()
	found := map[uint64]string{}
	for n, f := range listed {
		data, kept := h.contents(n)
		if afterCut {
			data = kept
		}
		end := int64(len(data))
		if f == nil {
			v, err := segment.Examine(bytes.NewReader(data), end, segment.Name(n), storeID, n)
			if err != nil {
				h.Errorf("open segment %d: %v\n%s", n, err, data)
			}
			end = v.End
		} else {
			h.checkSealed(f)
		}
		for s := segment.NewScanner(bytes.NewReader(data), 0, end); s.Scan(); {
			if l := s.Line(); l.Kind == segment.RecordLine {
				found[l.View.Seq] = l.View.Name()
			}
		}
	}
	return found
}

// examine returns what a power cut would leave of the open segment.
func (h *host) examine(number uint64) (segment.Verdict, []byte) {
	h.Helper()
	_, kept := h.contents(number)
	v, err := segment.Examine(bytes.NewReader(kept), int64(len(kept)), segment.Name(number), storeID, number)
	require.NoError(h, err)
	return v, kept
}

// noTail checks that after a power cut nothing would have to be cut off.
func (h *host) noTail(number uint64, records int) {
	h.Helper()
	v, kept := h.examine(number)
	require.Nil(h, v.Tail, "%s", kept)
	require.EqualValues(h, records, v.Records)
	require.Empty(h, strings.Trim(string(kept[v.End:]), "\n"))
}

// put makes a commit of a Put for each name.
func put(names ...string) *Commit { return NewCommit(puts(0, names)) }

func expiring(names ...string) *Commit { return NewCommit(puts(1, names)) }

func puts(expires int64, names []string) (records []Record) {
	for _, name := range names {
		r := segment.Record{Kind: segment.Put, Name: name, Value: []byte(`{"v":1}`), Expires: expires}
		records = append(records, Record{Kind: r.Kind, Name: name, Expires: expires, Body: segment.AppendBody(nil, &r)})
	}
	return records
}

// submit queues a commit and sees to the work in a goroutine.
func (h *host) submit(c *Commit) *Commit {
	if h.log.Submit(c, AnyEpoch) {
		go h.log.Run()
	}
	return c
}

// do makes a commit the way a lone writer does.
func (h *host) do(c *Commit) error {
	if h.log.Submit(c, AnyEpoch) {
		h.log.Lead()
	}
	_, err := c.Wait(context.Background())
	return err
}

func wait(c *Commit) error {
	_, err := c.Wait(context.Background())
	return err
}

// settle waits until the log is at rest.
func (h *host) settle() {
	h.log.mu.Lock()
	defer h.log.mu.Unlock()
	for h.log.mu.owned && !h.log.mu.closed {
		h.log.room.Wait()
	}
}

// readable checks that the records of commits lie where they are said to lie, for
// readers of the log.
func (h *host) readable(cs ...*Commit) {
	h.Helper()
	for _, c := range cs {
		for i := range c.Records {
			r := &c.Records[i]
			h.mu.Lock()
			s := h.segments[r.Segment]
			h.mu.Unlock()
			line := make([]byte, r.Len)
			if _, err := s.ReadAt(line, r.Offset); err != nil || !isLine(line, r) {
				h.Fatalf("record %d %q, segment %d, offset %d: %v %q", r.Seq, r.Name, r.Segment, r.Offset, err, line)
			}
		}
	}
}

// close closes the log and then, as a store does, its segments.
func (h *host) close() error {
	h.Helper()
	err := h.log.Close()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range slices.Sorted(maps.Keys(h.segments)) {
		assert.NoError(h, h.segments[n].Close())
	}
	assert.Zero(h, h.handles, "files left open")
	return err
}

// clean closes the log, which must work, and checks that the store then holds
// exactly the given records, all sealed.
func (h *host) clean(names ...string) {
	h.Helper()
	require.NoError(h, h.close())
	for n, f := range h.listed {
		require.NotNil(h, f, "segment %d is left open", n)
	}
	require.Len(h, h.listed, len(h.files), "files that are not listed")
	want := map[uint64]string{}
	for i, name := range names {
		want[uint64(i+1)] = name
	}
	require.Equal(h, want, h.records(true))
	require.EqualValues(h, len(names)+1, h.seq)
	require.Empty(h, h.failed)
}

// failure returns the log's error in err.
func failure(t *testing.T, err error) *FailedError {
	t.Helper()
	var failed *FailedError
	require.ErrorAs(t, err, &failed)
	require.ErrorIs(t, err, ErrFailed)
	return failed
}

// unsynced is an error of Install that leaves it unknown which MANIFEST stands.
func unsynced(err error) error { return &replace.SyncError{Path: dir, Err: err, Unknown: true} }
