package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

// tail is the end of the log: the file being written. It belongs to the owner.
type tail struct {
	seg      *Segment        // nil before the first write
	end      int64           // behind the last line
	size     int64           // of the file: end, or more by padding
	crc      uint32          // of all bytes before end
	records  uint64          // in the segment
	last     uint64          // the number of the last of them
	synced   bool            // all up to end is durable
	hastened int64           // up to here the disk was asked to begin
	footer   *segment.Footer // once the segment is sealed and the next one is not yet there
}

// full tells whether the next line must go to a new segment. A segment with
// nothing in it takes any commit.
func (t *tail) full(bytes, segmentSize int64) bool {
	return t.seg == nil || t.footer != nil || t.records > 0 && t.end+bytes > segmentSize
}

// newlines is what padding is made of.
var newlines = func() []byte {
	b := make([]byte, padUnit)
	for i := range b {
		b[i] = '\n'
	}
	return b
}()

// write puts a batch behind the last one. After an error the file is as it was,
// or the log has failed. Where the batch makes the file grow, newlines fill it up
// to the next 64 KiB (less where segments are smaller) and maybe further, see padAhead: the next batches then leave the
// size alone, and their sync need not write the inode. Padding that finds no room is left out.
func (l *Log) write(b *batch) error {
	t := &l.tail
	if err := t.intact(); err != nil {
		return l.fail(err, false)
	}
	end := t.end + int64(len(b.lines))
	size, padded := max(t.size, end), b.lines
	if end > t.size {
		unit := min(padUnit, l.opts.SegmentSize)
		size = (end + unit - 1) / unit * unit
		padded = append(b.lines, newlines[:size-end]...)
	}
	_, err := t.seg.file.WriteAt(padded, t.end)
	if err != nil && size > end && end > t.size {
		if err := l.cutBack(err); err != nil {
			return err
		}
		size = end
		_, err = t.seg.file.WriteAt(b.lines, t.end)
	}
	if err != nil {
		if failed := l.cutBack(err); failed != nil {
			return failed
		}
		return fmt.Errorf("annals: the write was taken back, nothing of it is left: %w", err)
	}
	if size > end && end > t.size {
		if size, err = l.padAhead(size, end, len(b.lines)); err != nil {
			return err
		}
	}
	t.crc = segment.Checksum(t.crc, b.lines)
	t.end, t.size, t.synced = end, size, false
	t.records += b.records
	if b.records > 0 {
		t.last = b.last
	}
	t.seg.written.Store(end)
	l.batches.Add(1)
	return nil
}

// padAhead fills a file of this size further, for as many batches of so many bytes as the
// log has written already: a sync of a file that has grown writes the inode too and
// all the newlines, and every writer waits for it. It must be much rarer than one
// in a hundred to stay out of the 99th percentile, and a crowd of writers fills a
// segment in 1,500 batches: they see it grow once. A log that is opened for one put
// pads it to a unit. A very large batch takes long anyway, and where commits do
// not wait for syncs nobody would notice.
//
// The pieces go behind the lines and nothing depends on them: a crash may leave any part
// of them. Each is the same memory, which is quicker than one long piece.
func (l *Log) padAhead(size, end int64, batch int) (int64, error) {
	if l.lazy() || batch > padBatch || l.opts.SegmentSize < padFrom {
		return size, nil
	}
	t := &l.tail
	ahead := int64(min(l.batches.Load(), growOnce))
	target := end + min(ahead*int64(batch), maxPad, l.opts.SegmentSize-end)
	for size+padUnit <= target {
		if _, err := t.seg.file.WriteAt(newlines, size); err != nil {
			if cut := t.seg.file.Truncate(size); cut != nil {
				return 0, l.fail(fmt.Errorf("%w; taking that padding back failed: %w", err, cut), true)
			}
			break
		}
		size += padUnit
	}
	return size, nil
}

// intact makes sure that nobody else has changed the file's length.
func (t *tail) intact() error {
	size, err := replace.SizeOf(t.seg.file)
	if err == nil && size != t.size {
		err = fmt.Errorf("segment %d is %d bytes long instead of %d: somebody else has changed it", t.seg.Number, size, t.size)
	}
	return err
}

// cutBack takes a failed write off the file again, durably. If it can't, a
// fragment may stand where later records would follow, and the log fails.
func (l *Log) cutBack(cause error) error {
	t := &l.tail
	err := t.seg.file.Truncate(t.end)
	if err == nil {
		t.size = t.end
		err = t.seg.file.Sync()
	}
	if err != nil {
		return l.fail(fmt.Errorf("%w; taking that write back failed: %w", cause, err), true)
	}
	return nil
}

// sync makes all that was written durable.
func (l *Log) sync() error {
	t := &l.tail
	if t.seg == nil || t.synced {
		return nil
	}
	l.syncs.Add(1)
	if err := t.seg.file.SyncData(); err != nil {
		return l.fail(err, true)
	}
	t.synced = true
	return nil
}

// fail ends all writing for good. The error names the first failure.
func (l *Log) fail(err error, unknown bool) error {
	l.mu.Lock()
	first := l.mu.failure == nil
	if first {
		l.mu.failure = err
	}
	err = l.mu.failure
	l.signalLocked()
	l.mu.Unlock()
	if first {
		l.opts.Host.Failed(err)
	}
	return &FailedError{Unknown: unknown, Err: err}
}

func (l *Log) path(number uint64) string { return filepath.Join(l.opts.Dir, segment.Name(number)) }

// create makes the file of a new segment with its header, durable under its
// name. A failed one leaves no file, unless the log has failed.
func (l *Log) create(s *Segment) (err error) {
	if err := l.sweep(); err != nil {
		return err
	}
	path := l.path(s.Number)
	file, err := l.opts.FS.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		// Numbers are given once, so this file is not ours.
		return l.fail(fmt.Errorf("another writer is at work: %w", err), false)
	}
	if err != nil {
		return err
	}
	h := segment.Header{Store: l.opts.Store, Segment: s.Number, First: s.First}
	line := h.AppendLine(nil)
	if _, err = file.WriteAt(line, 0); err != nil {
		return l.discard(path, file, err)
	}
	l.syncs.Add(1)
	if err = file.Sync(); err == nil {
		err = l.opts.FS.SyncDir(l.opts.Dir)
	}
	if err != nil {
		file.Close()
		return l.fail(err, false)
	}
	s.file = file
	s.written.Store(int64(len(line))) // before it is listed: whoever finds it in MANIFEST reads it
	return nil
}

// discard removes the file of a segment that did not come about.
func (l *Log) discard(path string, file interface{ Close() error }, cause error) error {
	file.Close()
	if err := l.opts.FS.Remove(path); err != nil {
		l.litter = path
		return fmt.Errorf("%w; removing the unfinished file failed: %w", cause, err)
	}
	return cause
}

// sweep removes what discard could not: the next try takes the same name.
func (l *Log) sweep() error {
	if l.litter == "" {
		return nil
	}
	if err := l.opts.FS.Remove(l.litter); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l.litter = ""
	return nil
}

// begin makes s the segment that is written.
func (l *Log) begin(s *Segment) {
	h := segment.Header{Store: l.opts.Store, Segment: s.Number, First: s.First}
	line := h.AppendLine(nil)
	l.tail = tail{seg: s, end: int64(len(line)), size: int64(len(line)), crc: segment.Checksum(0, line), last: s.First - 1, synced: true}
}
