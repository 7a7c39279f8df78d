package replace

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"os"
	"path/filepath"
)

// MaxObject is the length up to which [Append] takes an object and [ReadLines]
// gives one back.
const MaxObject = 16 << 20

// ErrObject reports an object that cannot be a line: it is empty, longer than
// [MaxObject], or has a byte below 0x20 in it.
var ErrObject = errors.New("object cannot be a line")

// Append appends object, a JSON object for one, to the file path as a line of its
// own with its checksum, and makes the file if it is missing:
//
//	{"timestamp": 1373396987.258189, "value": 0.9360123151217828} 9495b87a
//
// The line is the object, a space, the CRC32 (IEEE, as zlib has it) of its bytes in
// eight hex digits, and a newline. Bytes below 0x20 are refused with [ErrObject]:
// JSON does not need them.
//
//   - Atomic by the checksum: an append that a crash or a full disk cut short
//     leaves a line that [ReadLines] calls bad. Append itself cuts back what a
//     failed write left, if it can.
//   - Consistent since a torn line never spoils the next: if the file does not end
//     in a newline, Append starts on a new line and leaves the torn one as it is.
//     It may even turn out to lack its newline only; then it is a good line.
//   - Isolated by an exclusive lock on the file.
//   - Durable once it returns nil: the file is synced, and so was the directory
//     before the first line of a new file was written.
//
// If the sync fails, the error is a [*SyncError] whose Unknown is true: the line is
// there, and a crash may still take it away.
func Append(path string, object []byte, opts ...Option) error {
	if len(object) == 0 || len(object) > MaxObject || bytes.ContainsFunc(object, func(r rune) bool { return r < 0x20 }) {
		return fmt.Errorf("append to %q: %w", path, ErrObject)
	}
	f, err := LockedOpen(context.Background(), path, os.O_RDWR|os.O_CREATE, Exclusive, opts...)
	if err != nil {
		return err
	}
	if err := newOptions(opts).appendLocked(f, filepath.Clean(path), object); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return &SyncError{Path: path, Err: err, Unknown: true}
	}
	return nil
}

func (o options) appendLocked(f File, path string, object []byte) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	line := make([]byte, 0, len(object)+len("\n 01234567\n"))
	sync := f.SyncData
	if size == 0 {
		// Perhaps we made the file, perhaps somebody who was killed right after.
		// Its name is durable before there is anything in it, so whoever finds
		// something in it need not ask.
		if err := o.fsys.SyncDir(filepath.Dir(path)); err != nil {
			return &SyncError{Path: filepath.Dir(path), Err: err}
		}
		sync = f.Sync // the first time with all metadata
	} else {
		var last [1]byte
		if n, err := f.ReadAt(last[:], size-1); n == 0 {
			return err
		}
		if last[0] != '\n' {
			line = append(line, '\n')
		}
	}
	line = append(line, object...)
	line = fmt.Appendf(line, " %08x\n", crc32.ChecksumIEEE(object))
	if _, err := f.WriteAt(line, size); err != nil {
		// Where cutting back fails too, the next line starts on a line of its own.
		return errors.Join(err, f.Truncate(size))
	}
	if err := sync(); err != nil {
		return &SyncError{Path: path, Err: err, Unknown: true}
	}
	return nil
}

// Line is a line of a file that [Append] wrote.
type Line struct {
	Number int   // counted from 1
	Offset int64 // of its first byte in what was read

	// Object is what was appended, without the checksum. Of a bad line it is the
	// whole line, or the first MaxObject bytes of it. It is the caller's.
	Object []byte
}

// LineError says what is wrong with a line.
type LineError struct {
	Number int
	Offset int64
	Reason string

	// Torn means that the line is the last and has no newline: it was cut short,
	// or somebody is writing it right now.
	Torn bool
}

func (e *LineError) Error() string {
	return fmt.Sprintf("line %d at offset %d: %s", e.Number, e.Offset, e.Reason)
}

// ReadLines reads the lines that [Append] wrote, in order, and checks each. A bad
// line comes with a [*LineError], and the next one follows; any other error is one
// of r, and the last. Checksums padded with zeros (%08x) and with spaces (%8x, as
// in the article's sample) are both good; upper-case digits are not. A line's
// own checksum is all that counts: it is good even if its newline is missing.
//
// It needs no lock: a line that is just being written is bad or absent. What is
// read may not be durable yet; to know that it is, read under a shared lock.
func ReadLines(r io.Reader) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		br := bufio.NewReader(r)
		var offset int64
		for number := 1; ; number++ {
			text, size, err := readLine(br)
			line := Line{Number: number, Offset: offset, Object: text[:min(len(text), MaxObject)]}
			offset += size
			if err != nil && err != io.EOF {
				yield(line, err)
				return
			}
			if size == 0 {
				return
			}
			object, reason := checkLine(text)
			if reason == "" {
				line.Object = object
				if !yield(line, nil) {
					return
				}
				continue
			}
			bad := &LineError{Number: number, Offset: line.Offset, Reason: reason, Torn: err == io.EOF}
			if !yield(line, bad) {
				return
			}
		}
	}
}

const (
	sumDigits = 8
	maxText   = MaxObject + 1 + sumDigits
)

// readLine reads up to the next newline, in memory that does not grow with what
// a damaged file makes a line: text, without the newline, is at most one byte
// longer than the longest good line. size counts all that was read.
func readLine(br *bufio.Reader) (text []byte, size int64, err error) {
	for {
		part, err := br.ReadSlice('\n')
		size += int64(len(part))
		part, whole := bytes.CutSuffix(part, []byte("\n"))
		text = append(text, part[:min(len(part), maxText+1-len(text))]...)
		if whole || err != bufio.ErrBufferFull {
			return text, size, err
		}
	}
}

// checkLine splits a line into the object and its checksum, which takes the last
// eight bytes in either padding. reason is empty if the line is good.
func checkLine(text []byte) (object []byte, reason string) {
	cut := len(text) - sumDigits - 1
	switch {
	case len(text) > maxText:
		return nil, "line too long"
	case cut < 1 || text[cut] != ' ':
		return nil, "no checksum"
	}
	object, sum := text[:cut:cut], string(text[cut+1:])
	crc := crc32.ChecksumIEEE(object)
	if sum != fmt.Sprintf("%08x", crc) && sum != fmt.Sprintf("%8x", crc) {
		return nil, "wrong checksum"
	}
	return object, ""
}
