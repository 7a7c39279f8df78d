package beside

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/annalsdb/annals/replace"
)

// witness is the real file system, and knows which records a sync has covered. It
// knows it from the bytes that are written and from the moment when a sync has
// returned, not from the store.
type witness struct {
	replace.FS
	words *replace.Words // see below; all processes share them
	never bool           // under SyncNever what is written may be seen

	mu  sync.Mutex
	own uint64 // the same of files that this process has only read, and synced
}

// The words that witnesses share.
const (
	durableWord = iota // the greatest number that is durable
	segmentWord        // the segment that is being written
	writerWord         // by which process
	wordCount
)

// openWitness opens the file that witnesses share.
func openWitness(path string) (*witness, error) {
	file, err := replace.OS.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	words, err := file.(replace.WordMapper).MapWords(0, wordCount)
	return &witness{FS: replace.OS, words: words}, err
}

// durable is the greatest number that may be seen.
func (w *witness) durable() (uint64, error) {
	n, err := w.words.Load(durableWord)
	w.mu.Lock()
	defer w.mu.Unlock()
	return max(n, w.own), err
}

func (w *witness) Notices(dir string) (replace.Notices, error) { return replace.NoticesIn(w.FS, dir) }

func (w *witness) OpenFile(name string, flag int, perm fs.FileMode) (replace.File, error) {
	file, err := w.FS.OpenFile(name, flag, perm)
	if err != nil || !strings.HasSuffix(name, ".log") {
		return file, err
	}
	number, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(name), ".log"), 10, 64)
	return &witnessed{whole: file.(whole), w: w, number: number, reads: flag == os.O_RDONLY}, err
}

// whole is all that a file of the real file system can do.
type whole interface {
	replace.File
	replace.Mapper
	replace.Hastener
	io.Seeker
}

type witnessed struct {
	whole
	w      *witness
	number uint64
	reads  bool

	mu      sync.Mutex
	written uint64 // the greatest number in the file
}

func (f *witnessed) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.whole.WriteAt(p, off)
	f.mu.Lock()
	before := f.written
	f.written = max(f.written, lastSeq(p[:n]))
	growing := before != 0 && f.written > before
	f.mu.Unlock()
	if known, _ := f.w.words.Load(segmentWord); growing && f.number > known {
		f.w.words.Store(writerWord, uint64(os.Getpid()))
		f.w.words.Store(segmentWord, f.number)
	}
	if f.w.never && err == nil {
		err = f.sync(func() error { return nil })
	}
	return n, err
}

func (f *witnessed) Sync() error     { return f.sync(f.whole.Sync) }
func (f *witnessed) SyncData() error { return f.sync(f.whole.SyncData) }

func (f *witnessed) sync(sync func() error) error {
	f.mu.Lock()
	covered := f.written
	f.mu.Unlock()
	if f.reads {
		covered = f.seen()
	}
	if err := sync(); err != nil {
		return err
	}
	if f.reads && f.beingWritten() {
		return fmt.Errorf("a reader syncs segment %d under the writer's hands", f.number)
	}
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	if f.reads {
		f.w.own = max(f.w.own, covered)
		return nil
	}
	if before, err := f.w.words.Load(durableWord); err != nil || before >= covered {
		return err
	}
	return f.w.words.Store(durableWord, covered)
}

// beingWritten tells whether the file's writer lives on: readers may sync a segment
// only once it does not, since that would hold it up.
func (f *witnessed) beingWritten() bool {
	pid, _ := f.w.words.Load(writerWord)
	if number, _ := f.w.words.Load(segmentWord); number != f.number {
		return false
	}
	for range 10 { // one that was killed may take a moment to go
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, state, _ := strings.Cut(string(stat), ") ")
		if err != nil || strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X") {
			return false
		}
		time.Sleep(20 * time.Millisecond)
	}
	return true
}

// seen is the greatest number in a file that is only read.
func (f *witnessed) seen() uint64 {
	info, err := f.whole.Stat()
	if err != nil {
		return 0
	}
	text := make([]byte, info.Size())
	n, _ := f.whole.ReadAt(text, 0)
	return lastSeq(text[:n])
}

// lastSeq is the number in the last line of some lines that has one.
func lastSeq(lines []byte) uint64 {
	const mark = `{"seq":`
	i := bytes.LastIndex(lines, []byte(mark))
	if i < 0 {
		return 0
	}
	digits, _, _ := bytes.Cut(lines[i+len(mark):], []byte(","))
	n, _ := strconv.ParseUint(string(digits), 10, 64)
	return n
}
