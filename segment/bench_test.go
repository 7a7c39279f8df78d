package segment

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

// benchRecord has a key of 16 bytes and JSON of 100.
func benchRecord(seq uint64) *Record {
	return &Record{Seq: seq, Kind: Put, Name: fmt.Sprintf("key%013d", seq),
		Value: []byte(`{"name":"Ann","age":41,"filler":"0123456789012345678901234567890123456789012345678901234567890123456"}`)}
}

func BenchmarkDecodeLine(b *testing.B) {
	line := AppendRecord(nil, benchRecord(123456))
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		v, err := DecodeLine(line)
		if err != nil || v.Seq != 123456 {
			b.Fatal(err)
		}
	}
}

// benchSegment is a sealed segment of 16 MiB.
func benchSegment(b *testing.B) (*bytes.Reader, Footer) {
	h := Header{Store: "5f0c1e2d3a4b59687786a5b4c3d2e1f0", Segment: 1, First: 1}
	data := h.AppendLine(nil)
	f := Footer{Segment: 1, First: 1}
	for len(data) < 16<<20 {
		f.Records++
		f.Last++
		data = AppendRecord(data, benchRecord(f.Last))
	}
	f.Bytes, f.CRC = int64(len(data)), Checksum(0, data)
	return bytes.NewReader(f.AppendLine(data)), f
}

// BenchmarkCheckSealed reads a whole segment, beside what no reader can do without:
// finding the newlines, and the CRC of each line.
func BenchmarkCheckSealed(b *testing.B) {
	r, f := benchSegment(b)
	size := f.Size()
	b.Run("floor", func(b *testing.B) {
		buf := make([]byte, scanChunk)
		b.SetBytes(size)
		for b.Loop() {
			for off, rest := int64(0), 0; off < size; {
				got, _ := r.ReadAt(buf[rest:], off)
				off += int64(got)
				part := buf[:rest+got]
				for {
					i := bytes.IndexByte(part, '\n')
					if i < 0 {
						break
					}
					object, end := part[:i-crcSize+1], part[i-crcSize+1:i]
					if binary.BigEndian.Uint64(end[1:]) != hexWord(checksum(object)) {
						b.Fatal("a CRC is wrong")
					}
					part = part[i+1:]
				}
				rest = copy(buf, part)
			}
		}
	})
	b.Run("check", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(size)
		for b.Loop() {
			problems, err := CheckSealed(struct{ io.ReaderAt }{r}, size, "x", "5f0c1e2d3a4b59687786a5b4c3d2e1f0", f, nil)
			require.NoError(b, err)
			require.Empty(b, problems)
		}
	})
}
