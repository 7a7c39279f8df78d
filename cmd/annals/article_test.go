package main

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"
)

func TestArticleRecordReadsBothPaddings(t *testing.T) {
	for file, want := range map[string]int{"measures.log": 1000, "zero-padded.log": 1000, "truncated.log": 199, "damaged.log": 197} {
		data, err := os.ReadFile(filepath.Join("testdata/article", file))
		if err != nil {
			t.Fatal(err)
		}
		good := 0
		for line := range bytes.Lines(data) {
			if _, err := articleRecord(bytes.TrimSuffix(line, []byte("\n"))); err == nil {
				good++
			}
		}
		if good != want {
			t.Errorf("%s: %d good records, want %d", file, good, want)
		}
	}
}

func TestArticleRecordSaysWhatIsWrong(t *testing.T) {
	for line, want := range map[string]string{
		`{"a":1}`:          errNoChecksum.Error(),
		`{"a": 1}`:         errNoChecksum.Error(),
		`{"a":1} 00000000`: fmt.Sprintf("its checksum is %08x, the line says 00000000", crc32.ChecksumIEEE([]byte(`{"a":1}`))),
	} {
		if _, err := articleRecord([]byte(line)); err == nil || err.Error() != want {
			t.Errorf("%s: error is %v, want %s", line, err, want)
		}
	}
}

func TestArticleRecoverFindsWholeRecordsInsideALine(t *testing.T) {
	sum := func(record string) string { return fmt.Sprintf("%s %08x", record, crc32.ChecksumIEEE([]byte(record))) }
	a, b := `{"n":1,"sub":{"x":"} 1"}}`, `{"n":2}`
	tests := []struct {
		name, line string
		want       []string
	}{
		{"a cut record before a whole one", `{"n":1,"sub":{"x` + sum(b), []string{b}},
		{"a whole one before a cut one", sum(a) + `{"n":2`, []string{a}},
		{"two whole ones without the newline", sum(a) + sum(b), []string{a, b}},
		{"junk around", "\x00\x00" + sum(a) + "\x00 }} " + sum(b) + " zz", []string{a, b}},
		{"a changed digit", `{"n":3} ` + sum(b)[len(b)+1:], nil},
		{"nothing", "", nil},
		{"no checksum at all", `{"n":1}`, nil},
	}
	for _, test := range tests {
		var got []string
		for _, place := range articleRecover([]byte(test.line)) {
			got = append(got, test.line[place[0]:place[1]])
		}
		if fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}
