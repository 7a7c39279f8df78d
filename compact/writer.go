package compact

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

// writeChunk is how many bytes a Writer gathers for one write.
const writeChunk = 256 << 10

// Writer makes a sealed segment. Until Finish returns and the directory is
// synced, what it has written may be lost and nothing may depend on it.
type Writer struct {
	fs     replace.FS
	path   string
	file   replace.File
	buf    []byte
	off    int64 // of buf in the file
	footer segment.Footer
	ahead  *writeback // nil: only the sync writes to the disk
}

// writeback has the disk begin with what is written, beside the writing, so that the
// sync has little to wait for.
type writeback struct {
	file    replace.Hastener
	begun   int64 // up to here
	running chan error
}

// hasten begins with what lies before offset to, unless the disk is still busy with what
// it was told before.
func (b *writeback) hasten(to int64) error {
	if b == nil {
		return nil
	}
	if b.running != nil {
		select {
		case err := <-b.running:
			b.running = nil
			if err != nil {
				return err
			}
		default:
			return nil
		}
	}
	from, done := b.begun, make(chan error, 1)
	b.begun, b.running = to, done
	go func() { done <- b.file.StartWriteback(from, to-from) }()
	runtime.Gosched() // who writes keeps a core for itself otherwise
	return nil
}

// join waits until nothing is going on.
func (b *writeback) join() (err error) {
	if b != nil && b.running != nil {
		err = <-b.running
		b.running = nil
	}
	return err
}

// hastened makes the Writer use writeback, where there is such a thing.
func (w *Writer) hastened() {
	if f, ok := w.file.(replace.Hastener); ok {
		w.ahead = &writeback{file: f}
	}
}

// NewWriter creates the file of the segment that h describes, which must not
// exist, in dir.
func NewWriter(fsys replace.FS, dir string, h segment.Header) (*Writer, error) {
	path := filepath.Join(dir, segment.Name(h.Segment))
	file, err := fsys.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	w := &Writer{fs: fsys, path: path, file: file, footer: segment.Footer{Segment: h.Segment}}
	w.buf = h.AppendLine(make([]byte, 0, writeChunk+64<<10))
	return w, nil
}

// Path is the name of the file.
func (w *Writer) Path() string { return w.path }

// Size is the length of the file so far.
func (w *Writer) Size() int64 { return w.off + int64(len(w.buf)) }

// Add appends a record's line, with its newline, and returns its offset.
func (w *Writer) Add(seq uint64, line []byte) (offset int64, err error) {
	offset = w.Size()
	w.buf = append(w.buf, line...)
	f := &w.footer
	if f.Records == 0 {
		f.First = seq
	}
	f.First, f.Last = min(f.First, seq), max(f.Last, seq)
	f.Records++
	if len(w.buf) >= writeChunk {
		err = w.flush()
	}
	return offset, err
}

func (w *Writer) flush() error {
	w.footer.CRC = segment.Checksum(w.footer.CRC, w.buf)
	if _, err := w.file.WriteAt(w.buf, w.off); err != nil {
		return err
	}
	w.off += int64(len(w.buf))
	w.buf = w.buf[:0]
	return w.ahead.hasten(w.off)
}

// Finish writes the footer, makes the file durable and closes it. The name is
// durable once the directory is synced.
func (w *Writer) Finish() (segment.Footer, error) {
	f, err := w.end()
	if err != nil {
		return segment.Footer{}, err
	}
	if err := w.ahead.join(); err != nil {
		return segment.Footer{}, err
	}
	if err := w.file.Sync(); err != nil {
		return segment.Footer{}, err
	}
	file := w.file
	w.file = nil
	return f, file.Close()
}

// end writes the footer.
func (w *Writer) end() (segment.Footer, error) {
	if w.footer.Records == 0 {
		return segment.Footer{}, fmt.Errorf("%q: a segment needs a record", w.path)
	}
	if err := w.flush(); err != nil {
		return segment.Footer{}, err
	}
	w.buf = nil
	w.footer.Bytes = w.off
	_, err := w.file.WriteAt(w.footer.AppendLine(nil), w.off)
	return w.footer, err
}

// Discard closes and removes the file, finished or not.
func (w *Writer) Discard() error {
	if w.file != nil {
		_ = w.ahead.join() // nobody needs the file
		w.file.Close()
		w.file = nil
	}
	return w.fs.Remove(w.path)
}
