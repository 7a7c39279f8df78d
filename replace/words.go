package replace

import "errors"

// WordMapper is what a [File] may be besides: one of which a few numbers can be had
// as memory that is written too. Files of [OS] are, where the system keeps mapped
// memory and reads of the file alike (Linux, macOS, FreeBSD).
type WordMapper interface {
	// MapWords maps n words of 8 bytes from offset off, a multiple of 8, which must
	// lie in the first 4096 bytes. The file must be open for reading and, if something
	// is to be stored, for writing, and have these bytes.
	MapWords(off int64, n int) (*Words, error)
}

// Words are numbers in a file, little-endian, that processes share: each is
// stored as one, so that whoever loads it, or reads the file, sees the old or the
// new one. A store costs no system call. When it gets to the disk is left to the
// kernel: it is for what means nothing after a crash. Safe for concurrent use.
type Words struct{ mapped }

// ErrUnmapped reports that a word is not there, or can't be stored: the file was cut,
// it was open for reading only, or Close was called.
var ErrUnmapped = errors.New("the file's memory is not there")
