package annals

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"

	"github.com/annalsdb/annals/replace"
)

// A reader beside a writer. It must not show what a crash could still take, so it
// needs to know what is durable, and asks nobody: the writer leaves two numbers in
// LOCK, and shows by a lock that readers can see, and never take, that it is there.
//
// The order is what makes this right. The writer announces itself when both numbers
// are 0; stores MANIFEST's generation after MANIFEST was replaced and is durable; and
// then, whenever something has become durable, the number up to which it is: visible.
// A reader reads MANIFEST first, then looks at the lock, loads visible and, last,
// generation.
//
//	generation is newer than MANIFEST    MANIFEST is old: all again
//	the same, or older                   every record up to visible lies in a segment that this
//	                                     MANIFEST lists, since a segment is listed before its first
//	                                     record is shown; and whatever made compaction drop a record
//	                                     is durable, and not above visible
//	no writer, or none that serves yet   the open segment that MANIFEST lists is never written again:
//	                                     a writer that comes makes a sealed copy of it and goes on in
//	                                     a new one. So it can be judged in peace, as Open does
type glimpse struct {
	writer     presence
	visible    uint64 // the newest record that may be shown; 0 but for a writer that serves
	generation uint64
}

// presence is what can be known of a writer.
type presence int

const (
	writerUnknown presence = iota // it can't be told here
	writerGone                    // or it does not serve yet
	writerServes
)

// lookout looks at LOCK for a reader.
type lookout struct {
	fs   replace.FS
	path string

	file  replace.File // while there is a writer
	words *replace.Words
}

// look tells what there is to see.
func (l *lookout) look() glimpse {
	if l.file == nil {
		file, err := l.fs.OpenFile(l.path, os.O_RDONLY, 0)
		if errors.Is(err, fs.ErrNotExist) {
			return glimpse{writer: writerGone} // a writer makes it before anything else
		}
		if err != nil {
			return glimpse{} // it is another user's, perhaps
		}
		l.file = file
	}
	a, ok := l.file.(replace.Announcer)
	if !ok {
		l.close()
		return glimpse{}
	}
	there, err := a.Announced()
	if err != nil || !there {
		l.close() // the next one may have another file
		if err != nil {
			return glimpse{}
		}
		return glimpse{writer: writerGone}
	}
	s := glimpse{writer: writerServes}
	s.visible, err = l.load(visibleAt)
	if err == nil {
		s.generation, err = l.load(generationAt)
	}
	if err != nil || s.generation == 0 {
		s = glimpse{writer: writerGone}
	}
	if err != nil {
		l.close()
		s.writer = writerUnknown
	}
	return s
}

// load returns one of the numbers in LOCK.
func (l *lookout) load(at int64) (uint64, error) {
	if l.words == nil {
		if m, ok := l.file.(replace.WordMapper); ok {
			l.words, _ = m.MapWords(visibleAt, 2)
		}
	}
	if l.words != nil {
		return l.words.Load(int(at-visibleAt) / 8)
	}
	var b [8]byte
	if _, err := l.file.ReadAt(b[:], at); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

func (l *lookout) close() {
	if l.words != nil {
		l.words.Close()
	}
	if l.file != nil {
		l.file.Close() // it was only read
	}
	l.file, l.words = nil, nil
}
