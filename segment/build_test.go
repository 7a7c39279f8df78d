package segment

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The tests build files from the text of their lines, with the standard
// library's checksum, so that no mistake of the package's writer can hide one of
// its reader.

const (
	ours   = "5f0c0d9e1b2a38475665748392a1b0cf"
	theirs = "00000000000000000000000000000000"
)

// line ends an object with its checksum.
func line(object string) string {
	return fmt.Sprintf("%s %08x\n", object, crc32.ChecksumIEEE([]byte(object)))
}

func header(number, first uint64) string {
	return line(fmt.Sprintf(`{"annals":1,"store":"%s","segment":%d,"first":%d}`, ours, number, first))
}

func compactedHeader(number uint64, order Order) string {
	return line(fmt.Sprintf(`{"annals":1,"store":"%s","segment":%d,"from":[1,2],"compacted":true,"order":"%s"}`, ours, number, order))
}

// rec is a record line; its value says which.
func rec(seq uint64) string {
	return line(fmt.Sprintf(`{"seq":%d,"key":"k%d","val":%d}`, seq, seq, seq))
}

// recDur is the first line of a batch.
func recDur(seq, dur uint64) string {
	return line(fmt.Sprintf(`{"seq":%d,"dur":%d,"key":"k%d","val":%d}`, seq, dur, seq, seq))
}

// recMore is a line of a commit that goes on.
func recMore(seq uint64) string {
	return line(fmt.Sprintf(`{"seq":%d,"more":true,"key":"k%d","val":%d}`, seq, seq, seq))
}

func mark(dur uint64) string { return line(fmt.Sprintf(`{"dur":%d,"now":1732284001.000000}`, dur)) }

// named is a put of a key of one's choice.
func named(seq uint64, key string) string {
	return line(fmt.Sprintf(`{"seq":%d,"key":"%s","val":0}`, seq, key))
}

func sample(seq uint64) string {
	return line(fmt.Sprintf(`{"seq":%d,"ser":"s","at":1.000000,"val":0}`, seq))
}

// footerOf is the footer of the lines before it.
func footerOf(number, first, last, records uint64, before string) Footer {
	return Footer{Segment: number, First: first, Last: last, Records: records, Bytes: int64(len(before)), CRC: crc32.ChecksumIEEE([]byte(before))}
}

func footerLine(f Footer) string {
	return line(fmt.Sprintf(`{"sealed":%d,"first":%d,"last":%d,"records":%d,"bytes":%d,"crc":"%08x"}`, f.Segment, f.First, f.Last, f.Records, f.Bytes, f.CRC))
}

// sealed is a whole segment 2 with records first to last, and its footer.
func sealed(first, last uint64, lines ...string) (text string, f Footer) {
	before := strings.Join(lines, "")
	f = footerOf(2, first, last, last-first+1, before)
	return before + footerLine(f), f
}

// recomputed gives each line of text the checksum of its object, if it looks
// like a line at all: so a change gets past the checksum.
func recomputed(text []byte) []byte {
	var out []byte
	for l := range bytes.Lines(text) {
		if n := len(l) - crcSize; n > 0 && l[len(l)-1] == '\n' {
			l = []byte(line(string(l[:n])))
		}
		out = append(out, l...)
	}
	return out
}

func check(t testing.TB, text string, want Footer) []*CorruptError {
	t.Helper()
	problems, err := CheckSealed(strings.NewReader(text), int64(len(text)), "2.log", ours, want, nil)
	require.NoError(t, err)
	return problems
}

func examine(text string) (Verdict, error) {
	return Examine(strings.NewReader(text), int64(len(text)), "2.log", ours, 2)
}

// concat joins lines.
func concat(lines ...string) string { return strings.Join(lines, "") }

// without returns lines without the one at i.
func without(lines []string, i int) []string { return slices.Delete(slices.Clone(lines), i, i+1) }
