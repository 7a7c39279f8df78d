package segment

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// testdata/v1 is a store as format 1 has it, written once. Its files are never
// rewritten: every later version must read them and, as long as it writes format
// 1, write them. There is no flag that makes them anew, and this list would
// notice.
var goldenSums = map[string]string{
	"00000000000000000002.log": "38590e4026428febb9a2f97a75a2b2bf1e307b8a85e8cbe950024b65a4a16d6f",
	"00000000000000000004.log": "f5e0644c1e651c66f69c1ba26c392e7b51662cb8d192337d2393f1651ddb6434",
	"00000000000000000006.log": "b7cb1f963b821bdfc9ee4d8fb8063d11fc291329c10d8f046db1d801bdf28d7a",
	"00000000000000000007.log": "ef8547f870d2a7852f68387fb297e8d5e8b5f2d43acd3b0de925c9a6fedf8778",
	"00000000000000000008.log": "edb636a4cd8bf83cafae1a2232dc24abb991c34b9c6625764e4e3366ab79f273",
	"MANIFEST":                 "5123b62e2c1fb90f5e9e711ae982dc362fd924cc696f2a0615508a54e99c9690",
}

const goldenDir = "testdata/v1"

// The files, by what is special about each.
const (
	goldenManifest  = "MANIFEST"
	goldenWritten   = "00000000000000000002.log" // sealed as first written, with every kind of record
	goldenRecovered = "00000000000000000004.log" // what recovery made of segment 3
	goldenByKey     = "00000000000000000006.log"
	goldenBySeq     = "00000000000000000007.log"
	goldenOpen      = "00000000000000000008.log" // with padding
)

func golden(t testing.TB, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(goldenDir, name))
	require.NoError(t, err)
	return raw
}

// goldenStamp is a moment in the golden files.
const goldenStamp = 1732284000_123456

// goldenRecords are the records of each segment.
var goldenRecords = map[string][]Record{
	goldenWritten: {
		{Seq: 1, Kind: Put, Name: "user:1", Value: []byte(`{"name":"Ann","age":41}`)},
		{Seq: 2, Dur: 1, Kind: Put, Name: "motd", Value: []byte("two\nlines")},
		{Seq: 3, Dur: 2, Kind: Put, Name: "blob", Value: []byte{0, 1, 2, 255}},
		{Seq: 4, Dur: 3, Kind: Delete, Name: "user:1"},
		{Seq: 5, Kind: Put, Name: "session:9", Value: []byte("1"), Expires: 1732290000_000000},
		{Seq: 6, Dur: 5, Kind: Sample, Name: "hall-003", Value: []byte(`{"t":21.5}`), At: goldenStamp},
		{Seq: 7, Dur: 6, More: true, Kind: Put, Name: "a", Value: []byte("1")},
		{Seq: 8, Kind: Put, Name: "b", Value: []byte("2")},
		{Seq: 9, Kind: Put, Name: "\xff\"\\", Value: []byte("a key that is not UTF-8")},
		{Seq: 10, Dur: 9, Kind: Put, Name: "", Value: nil},
		{Seq: 11, Dur: 10, Kind: Put, Name: "\"\\\b\f\n\r\t\x00\x1f\x7fé", Value: []byte(` { "spaces" : [ "stay" , 1.50e+3 ] } `)},
		{Seq: 12, Dur: 11, Kind: Sample, Name: "日本", Value: []byte("said \"no\" to \\"), At: -1},
	},
	goldenRecovered: {
		{Seq: 13, Kind: Put, Name: "a", Value: []byte("true")},
		{Seq: 14, Dur: 13, More: true, Kind: Put, Name: "b", Value: []byte(`"x"`)},
		{Seq: 15, Kind: Delete, Name: "a"},
	},
	goldenByKey: {
		{Seq: 17, Kind: Put, Name: "a", Value: []byte("null")},
		{Seq: 21, Dur: 20, Kind: Put, Name: "a", Value: []byte("[]")},
		{Seq: 20, More: true, Kind: Put, Name: "b", Value: []byte("-0.5")},
		{Seq: 19, Kind: Delete, Name: "c"},
	},
	goldenBySeq: {
		{Seq: 16, Kind: Sample, Name: "hall-003", Value: []byte(`{"t":21.6}`), At: goldenStamp + 1e6},
		{Seq: 18, Dur: 17, Kind: Sample, Name: "hall-001", Value: []byte(`{"t":19}`), At: goldenStamp},
		{Seq: 22, Kind: Sample, Name: "hall-003", Value: []byte(`{"t":21.7}`), At: goldenStamp + 2e6},
	},
	goldenOpen: {
		{Seq: 23, Kind: Put, Name: "c", Value: []byte("3")},
		{Seq: 24, Dur: 23, More: true, Kind: Put, Name: "d", Value: []byte("4")},
		{Seq: 25, Kind: Sample, Name: "hall-003", Value: []byte(`{"t":21.8}`), At: goldenStamp + 3e6},
	},
}

var goldenHeaders = map[string]Header{
	goldenWritten:   {Store: ours, Segment: 2, First: 1},
	goldenRecovered: {Store: ours, Segment: 4, First: 13, From: []uint64{3}},
	goldenByKey:     {Store: ours, Segment: 6, From: []uint64{1, 5}, Order: ByKey},
	goldenBySeq:     {Store: ours, Segment: 7, From: []uint64{1, 5}, Order: BySeq},
	goldenOpen:      {Store: ours, Segment: 8, First: 23},
}

// goldenMarks are the marks of a segment, by the number of the record before.
var goldenMarks = map[string]map[uint64]Mark{
	goldenWritten: {4: {Dur: 4, Now: 1732284001e6}, 12: {Dur: 12, Now: 1732284002e6}},
	goldenOpen:    {25: {Dur: 25, Now: 1732284004_000001}},
}

// writtenGolden is what this version writes for a golden segment.
func writtenGolden(name string) (raw []byte, f Footer) {
	h := goldenHeaders[name]
	raw = h.AppendLine(nil)
	records := goldenRecords[name]
	f = Footer{Segment: h.Segment, First: records[0].Seq, Records: uint64(len(records))}
	for i := range records {
		r := &records[i]
		raw = AppendRecord(raw, r)
		f.First, f.Last = min(f.First, r.Seq), max(f.Last, r.Seq)
		if m, ok := goldenMarks[name][r.Seq]; ok {
			raw = m.AppendLine(raw)
		}
	}
	if name == goldenOpen {
		return append(raw, bytes.Repeat([]byte("\n"), 4096-len(raw))...), f
	}
	f.Bytes, f.CRC = int64(len(raw)), Checksum(0, raw)
	return f.AppendLine(raw), f
}

func goldenManifestOf() Manifest {
	m := Manifest{Store: ours, Generation: 12, Open: 8, Next: 9, Seq: 23, History: 23, Clock: 1732284003_500000}
	for _, name := range []string{goldenWritten, goldenRecovered, goldenByKey, goldenBySeq} {
		_, f := writtenGolden(name)
		m.Sealed = append(m.Sealed, f)
	}
	return m
}

func TestGoldenFilesWereNotTouched(t *testing.T) {
	entries, err := os.ReadDir(goldenDir)
	require.NoError(t, err)
	require.Len(t, entries, len(goldenSums))
	for name, sum := range goldenSums {
		got := sha256.Sum256(golden(t, name))
		require.Equal(t, sum, hex.EncodeToString(got[:]), "%s is a golden file of format 1 and never changes", name)
	}
}

func TestGoldenFilesAreWhatIsWritten(t *testing.T) {
	for name := range goldenHeaders {
		raw, _ := writtenGolden(name)
		require.Equal(t, string(golden(t, name)), string(raw), name)
	}
	m := goldenManifestOf()
	require.Equal(t, string(golden(t, goldenManifest)), string(m.Append(nil)))
}

func TestGoldenFilesAreRead(t *testing.T) {
	m, err := ParseManifest("MANIFEST", golden(t, goldenManifest))
	require.NoError(t, err)
	require.Equal(t, goldenManifestOf(), m)
	for i := range m.Sealed {
		f := &m.Sealed[i]
		name := Name(f.Segment)
		raw := golden(t, name)
		var records []Record
		problems, err := CheckSealed(bytes.NewReader(raw), int64(len(raw)), name, m.Store, *f, func(l *Line) error {
			records = append(records, l.View.Record())
			return nil
		})
		require.NoError(t, err)
		require.Empty(t, problems)
		requireRecords(t, goldenRecords[name], records)
		h, _, err := ReadHeader(bytes.NewReader(raw), int64(len(raw)), name)
		require.NoError(t, err)
		require.Equal(t, goldenHeaders[name], h)
	}
	raw := golden(t, goldenOpen)
	v, err := Examine(bytes.NewReader(raw), int64(len(raw)), goldenOpen, m.Store, m.Open)
	require.NoError(t, err)
	require.Equal(t, Verdict{
		Header: goldenHeaders[goldenOpen], Records: 3, Last: 25, MaxSeq: 25, Clock: 1732284004_000001,
		End: int64(len(bytes.TrimRight(raw, "\n")) + 1),
	}, v)
}

func requireRecords(t *testing.T, want, got []Record) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		require.Equal(t, string(want[i].Value), string(got[i].Value))
		w, g := want[i], got[i]
		w.Value, g.Value = nil, nil
		require.Equal(t, w, g)
	}
}

// Every other language sees these objects: bytes of old files, spelled out.
func TestGoldenLinesAsText(t *testing.T) {
	text := string(golden(t, goldenWritten))
	for _, o := range []string{
		`{"annals":1,"store":"` + ours + `","segment":2,"first":1}`,
		`{"seq":1,"key":"user:1","val":{"name":"Ann","age":41}}`,
		`{"seq":2,"dur":1,"key":"motd","txt":"two\nlines"}`,
		`{"seq":3,"dur":2,"key":"blob","b64":"AAEC/w=="}`,
		`{"seq":4,"dur":3,"key":"user:1","del":true}`,
		`{"dur":4,"now":1732284001.000000}`,
		`{"seq":5,"key":"session:9","exp":1732290000.000000,"val":1}`,
		`{"seq":6,"dur":5,"ser":"hall-003","at":1732284000.123456,"val":{"t":21.5}}`,
		`{"seq":7,"dur":6,"more":true,"key":"a","val":1}`,
		`{"seq":8,"key":"b","val":2}`,
		`{"seq":9,"k64":"/yJc","txt":"a key that is not UTF-8"}`,
		`{"seq":10,"dur":9,"key":"","txt":""}`,
		`{"seq":11,"dur":10,"key":"\"\\\b\f\n\r\t\u0000\u001f` + "\x7f" + `é","val": { "spaces" : [ "stay" , 1.50e+3 ] } }`,
		`{"seq":12,"dur":11,"ser":"日本","at":-0.000001,"txt":"said \"no\" to \\"}`,
	} {
		require.Contains(t, text, line(o))
	}
}

// The picture in the package comment quotes golden lines.
func TestThePackageCommentTellsTheTruth(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	var all strings.Builder
	for name := range goldenSums {
		all.Write(golden(t, name))
	}
	quoted := regexp.MustCompile(`(?m)^//\t(\{.*\} [0-9a-f]{8})`).FindAllStringSubmatch(string(doc), -1)
	require.GreaterOrEqual(t, len(quoted), 12)
	for _, q := range quoted {
		require.Contains(t, all.String(), q[1]+"\n")
	}
	// And no line looks like a quote that the expression overlooks.
	require.Len(t, regexp.MustCompile(`(?m)^//\t\{.*\} `).FindAllString(string(doc), -1), len(quoted))
}
