package main

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"regexp"
	"strconv"
)

// Logs as the article "Reliable file updates with Python" writes them: a line is
// a JSON object, a space, and the CRC32 of the object's bytes as 8 hex digits,
// padded in front with spaces (%8x) or zeros (%08x).

// articleRecord reads one line. The record is good if its checksum is right.
func articleRecord(line []byte) ([]byte, error) {
	line = bytes.TrimRight(line, " \t\r")
	cut := bytes.LastIndexByte(line, ' ')
	if cut < 0 {
		return nil, errNoChecksum
	}
	want, err := strconv.ParseUint(string(line[cut+1:]), 16, 32)
	if err != nil {
		return nil, errNoChecksum
	}
	record := bytes.TrimRight(line[:cut], " ") // the padding
	if got := crc32.ChecksumIEEE(record); got != uint32(want) {
		return nil, fmt.Errorf("its checksum is %08x, the line says %08x", got, want)
	}
	return record, nil
}

var errNoChecksum = errors.New("it has no checksum: it was cut short, or is none of a log's lines")

// glued is where a record may end inside a line: a brace, a space and a checksum.
var glued = regexp.MustCompile(`\} +[0-9a-f]{1,8}`)

// A line that was cut short swallows the line behind it, and both may have been
// whole but for the newline. These bound the search for what is left, which takes
// the square of a line's length in the worst case.
const (
	maxGluedLine  = 1 << 20
	maxGluedTries = 10_000
)

// articleRecover finds the whole records inside a line that is bad as such. It
// returns their places in the line.
func articleRecover(line []byte) (records [][2]int) {
	if len(line) > maxGluedLine {
		return nil
	}
	tries, from := 0, 0
	for _, match := range glued.FindAllIndex(line, -1) {
		end := match[0] + 1
		want, err := strconv.ParseUint(string(bytes.TrimLeft(line[end:match[1]], " ")), 16, 32)
		if err != nil {
			continue
		}
		for i := from; i < end && tries < maxGluedTries; i++ {
			if line[i] != '{' {
				continue
			}
			tries++
			if crc32.ChecksumIEEE(line[i:end]) == uint32(want) {
				records = append(records, [2]int{i, end})
				from = match[1]
				break
			}
		}
	}
	return records
}

// appendArticle appends a record in the article's form.
func appendArticle(dst, record []byte, format string) []byte {
	dst = append(dst, record...)
	return fmt.Appendf(dst, format, crc32.ChecksumIEEE(record))
}
