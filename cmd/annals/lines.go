package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// maxLine is the longest line that is read. It is the longest that a log holds.
const maxLine = 256 << 20

// lineReader reads lines and knows where it is.
type lineReader struct {
	r      *bufio.Reader
	limit  int    // the longest line in bytes
	long   []byte // a line that did not fit into r's buffer
	number int    // of the line that next returned last, from 1
	start  int64  // its offset
	end    int64  // the offset behind it and its newline
}

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 256<<10), limit: maxLine}
}

// next returns the next line without its newline, and io.EOF behind the last
// one. The line is valid until the next call.
func (l *lineReader) next() ([]byte, error) {
	line, err := l.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		line, err = l.nextLong(line)
	}
	if err != nil && (err != io.EOF || len(line) == 0) {
		return nil, err
	}
	l.number++
	l.start = l.end
	l.end += int64(len(line))
	if err == nil {
		line = line[:len(line)-1]
	}
	return line, nil
}

// nextSample is next for lines that become values: one that ends with a carriage return
// and a newline, as Windows and serial ports end lines, ends before both. With the
// carriage return it would be a text, whatever it holds.
func (l *lineReader) nextSample() ([]byte, error) {
	line, err := l.next()
	return bytes.TrimSuffix(line, []byte("\r")), err
}

// piece is the line that next returned last, as a part of the file.
func (l *lineReader) piece(line []byte) leftOut {
	return leftOut{Line: l.number, Offset: l.start, Bytes: len(line)}
}

// fail says in which line err happened.
func (l *lineReader) fail(err error) error {
	return fmt.Errorf("line %d: %w", l.number, err)
}

// nextLong reads on in a line that began with head.
func (l *lineReader) nextLong(head []byte) ([]byte, error) {
	l.long = append(l.long[:0], head...)
	for {
		part, err := l.r.ReadSlice('\n')
		l.long = append(l.long, part...)
		if len(l.long) > l.limit {
			return nil, fmt.Errorf("line %d is longer than %d bytes", l.number+1, l.limit)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return l.long, err
		}
	}
}

// interruptible makes reads of r end with ctx, which a blocked read of a pipe or
// terminal does not: reading goes on in a goroutine of its own, one buffer ahead.
func interruptible(ctx context.Context, r io.Reader) io.Reader {
	i := &interruptibleReader{ctx: ctx, full: make(chan chunk), free: make(chan []byte, 2)}
	i.free <- make([]byte, 256<<10)
	i.free <- make([]byte, 256<<10)
	go func() {
		for buf := range i.free {
			n, err := r.Read(buf)
			select {
			case i.full <- chunk{buf, buf[:n], err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return i
}

type chunk struct {
	buf  []byte
	data []byte // what is left of it
	err  error  // comes after the data
}

type interruptibleReader struct {
	ctx  context.Context
	full chan chunk
	free chan []byte
	now  chunk
}

func (i *interruptibleReader) Read(p []byte) (int, error) {
	for len(i.now.data) == 0 {
		if i.now.err != nil {
			return 0, i.now.err
		}
		if i.now.buf != nil {
			i.free <- i.now.buf
		}
		select {
		case i.now = <-i.full:
		case <-i.ctx.Done():
			i.now = chunk{err: i.ctx.Err()}
		}
	}
	n := copy(p, i.now.data)
	i.now.data = i.now.data[n:]
	return n, nil
}
