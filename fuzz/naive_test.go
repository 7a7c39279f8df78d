package fuzz

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// This is FORMAT.md once more, in the plainest Go: its own expressions, the
// standard library's checksum and JSON, whole files in memory, and not a line of
// the store's code. What it says about a damaged store is what the tests hold
// the store to.

// naiveObject has all fields that any line can have.
type naiveObject struct {
	Annals     uint64
	Store      string
	Segment    uint64
	First      uint64
	From       []uint64
	Order      string
	Seq        uint64
	Dur        *uint64
	More       bool
	Key, K64   json.RawMessage
	Ser        json.RawMessage
	Exp, At    json.Number
	Txt, B64   json.RawMessage
	Del        bool
	Now        json.Number
	Sealed     uint64
	Last       uint64
	Records    uint64
	Bytes      uint64
	CRC        string
	Generation uint64
	Segments   uint64
	Open       uint64
	Next       uint64
	History    uint64
	Clock      json.Number
}

// naiveLine is a line. kind is "bad", "blank", or the name of the line's
// expression in FORMAT.md; newer is true for a line of a newer format.
type naiveLine struct {
	*naiveFields
	offset, end int
}

type naiveFields struct {
	naiveObject
	kind        string
	newer       bool
	name, value string
	at, exp     int64
}

func (l *naiveFields) dur() uint64 {
	if l.Dur == nil {
		return 0
	}
	return *l.Dur
}

// naiveKinds are the expressions of FORMAT.md by name.
var naiveKinds = func() map[string]*regexp.Regexp {
	page, err := os.ReadFile("../FORMAT.md")
	if err != nil {
		panic(err)
	}
	block := regexp.MustCompile("(?ms)^```regex\n(.*?)^```$").FindSubmatch(page)[1]
	parts := map[string]string{}
	for l := range strings.Lines(string(block)) {
		name, expression, _ := strings.Cut(strings.TrimSuffix(l, "\n"), " ")
		parts[name] = strings.TrimLeft(expression, " ")
	}
	kinds := map[string]*regexp.Regexp{}
	for _, kind := range strings.Split(strings.Trim(parts["object"], "<>"), ">|<") {
		expression := parts[kind]
		for ref := regexp.MustCompile(`<(\w+)>`); ref.MatchString(expression); {
			expression = ref.ReplaceAllStringFunc(expression, func(s string) string { return "(?:" + parts[s[1:len(s)-1]] + ")" })
		}
		kinds[kind] = regexp.MustCompile(`\A(?:` + expression + `)\z`)
	}
	return kinds
}()

var newerFormat = regexp.MustCompile(`\A\{"annals":([1-9][0-9]{0,15})(?:[^0-9\x00-\x1f][^\x00-\x1f]*)?\}\z`)

// naiveLines takes a file apart. An end without a newline is a bad line.
func naiveLines(raw []byte) []naiveLine {
	lines := make([]naiveLine, 0, bytes.Count(raw, []byte("\n"))+1)
	for at := 0; at < len(raw); {
		end := len(raw)
		if i := bytes.IndexByte(raw[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		lines = append(lines, naiveLine{naiveParse(raw[at:end]), at, end})
		at = end
	}
	return lines
}

// parsed remembers lines: nearly all of a damaged file are as they were.
var parsed = map[string]*naiveFields{}

var blankLine = &naiveFields{kind: "blank"}

func naiveParse(raw []byte) *naiveFields {
	if len(raw) == 1 && raw[0] == '\n' {
		return blankLine
	}
	if l, ok := parsed[string(raw)]; ok {
		return l
	}
	l := naiveParseAnew(raw)
	if len(parsed) > 10000 {
		clear(parsed)
	}
	parsed[string(raw)] = l
	return l
}

var sumAtEnd = regexp.MustCompile(`\A [0-9a-f]{8}\n\z`)

func naiveParseAnew(raw []byte) *naiveFields {
	bad := &naiveFields{kind: "bad"}
	if len(raw) < 10 || !sumAtEnd.Match(raw[len(raw)-10:]) {
		return bad
	}
	object := raw[:len(raw)-10]
	if fmt.Sprintf(" %08x\n", crc32.ChecksumIEEE(object)) != string(raw[len(raw)-10:]) {
		return bad
	}
	for kind, expression := range naiveKinds {
		if expression.Match(object) {
			l := &naiveFields{kind: kind}
			if !l.decode(object) {
				return bad
			}
			return l
		}
	}
	if m := newerFormat.FindSubmatch(object); m != nil {
		n, _ := strconv.ParseUint(string(m[1]), 10, 64)
		bad.newer = n > 1 && n < 1<<53
	}
	return bad
}

// decode takes the fields, and tells whether they keep the limits.
func (l *naiveFields) decode(object []byte) bool {
	if at := bytes.Index(object, []byte(`,"val":`)); l.kind == "record" && at >= 0 {
		l.value = string(object[at+len(`,"val":`) : len(object)-1])
		object = append(bytes.Clone(object[:at]), '}')
	}
	if err := json.Unmarshal(object, &l.naiveObject); err != nil {
		return false
	}
	for _, n := range slices.Concat(l.From, []uint64{l.Segment, l.First, l.Seq, l.dur(), l.Sealed, l.Last, l.Records, l.Bytes, l.Generation, l.Segments, l.Open, l.Next, l.History}) {
		if n > 1<<53-1 {
			return false
		}
	}
	for _, t := range []json.Number{l.Exp, l.At, l.Now, l.Clock} {
		if micros := naiveMicros(t); t == "-0.000000" || micros <= -1<<53 || micros >= 1<<53 {
			return false
		}
	}
	l.at = naiveMicros(l.At)
	if l.Exp != "" {
		l.exp = max(naiveMicros(l.Exp), 1)
	}
	if l.kind == "record" {
		l.name = naiveUnquote(l.Key) + naiveUnquote(l.Ser) + naiveBase64(l.K64)
		l.value += naiveUnquote(l.Txt) + naiveBase64(l.B64)
		if len(l.K64) == 0 && !utf8.ValidString(l.name) {
			return false
		}
	}
	return l.kind != "footer" || l.First <= l.Last
}

func naiveMicros(t json.Number) int64 {
	if t == "" {
		return 0
	}
	micros, err := strconv.ParseInt(strings.Replace(string(t), ".", "", 1), 10, 64)
	if err != nil {
		return math.MaxInt64
	}
	return micros
}

// naiveUnquote undoes the escapes of a string and keeps all other bytes, valid
// UTF-8 or not, which encoding/json would not.
func naiveUnquote(raw json.RawMessage) string {
	var b strings.Builder
	for i := 1; i < len(raw)-1; i++ {
		if raw[i] != '\\' {
			b.WriteByte(raw[i])
			continue
		}
		i++
		if raw[i] == 'u' {
			n, _ := strconv.ParseUint(string(raw[i+1:i+5]), 16, 8)
			b.WriteByte(byte(n))
			i += 4
			continue
		}
		b.WriteByte(map[byte]byte{'"': '"', '\\': '\\', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}[raw[i]])
	}
	return b.String()
}

func naiveBase64(raw json.RawMessage) string {
	b, err := base64.StdEncoding.DecodeString(strings.Trim(string(raw), `"`))
	if err != nil {
		panic(err) // the expression has let nothing else through
	}
	return string(b)
}

// naiveFooter tells whether a footer says what is true of the lines before it.
func naiveFooter(f *naiveLine, raw []byte, number uint64, records []naiveLine) bool {
	if f.Sealed != number || f.Bytes != uint64(f.offset) || f.CRC != fmt.Sprintf("%08x", crc32.ChecksumIEEE(raw[:f.offset])) || f.Records != uint64(len(records)) || len(records) == 0 {
		return false
	}
	bySeq := func(a, b naiveLine) int { return cmp.Compare(a.Seq, b.Seq) }
	return f.First == slices.MinFunc(records, bySeq).Seq && f.Last == slices.MaxFunc(records, bySeq).Seq
}

// naiveSealed returns the records of a segment that MANIFEST lists as sealed with
// this footer, and whether it is valid.
func naiveSealed(raw []byte, store string, footer naiveLine) (records []naiveLine, valid bool) {
	lines := naiveLines(raw)
	if len(lines) < 2 || lines[0].kind != "header" || lines[0].Store != store || lines[0].Segment != footer.Sealed {
		return nil, false
	}
	h, last := lines[0], lines[len(lines)-1]
	more := false
	for _, l := range lines[1 : len(lines)-1] {
		switch {
		case l.kind == "record":
			records = append(records, l)
			more = l.More && h.Order == ""
		case l.kind != "mark" || more || h.Order != "":
			return nil, false
		}
	}
	if more || last.kind != "footer" || !naiveFooter(&last, raw, footer.Sealed, records) {
		return nil, false
	}
	for i, l := range records {
		switch {
		case h.Order == "" && l.Seq != h.First+uint64(i), h.Order == "key" && l.Ser != nil, h.Order == "seq" && l.Ser == nil:
			return nil, false
		case i == 0 || h.Order == "":
		case h.Order == "seq" && l.Seq <= records[i-1].Seq, h.Order == "key" && cmp.Or(strings.Compare(l.name, records[i-1].name), cmp.Compare(l.Seq, records[i-1].Seq)) <= 0:
			return nil, false
		}
	}
	listed, found := footer.naiveObject, last.naiveObject
	return records, fmt.Sprint(listed) == fmt.Sprint(found)
}

// naiveOpen is what FORMAT.md says of an open segment.
type naiveOpen struct {
	valid   bool
	records []naiveLine // of the good part
	first   uint64
	s       uint64
	end     int  // of the good part
	tail    bool // more than padding follows
}

func naiveExamine(raw []byte, store string, number uint64) (o naiveOpen) {
	lines := naiveLines(raw)
	if len(lines) == 0 || lines[0].kind != "header" || lines[0].Store != store || lines[0].Segment != number || lines[0].From != nil || lines[0].Order != "" {
		return o
	}
	o.first, o.s, o.end = lines[0].First, lines[0].First-1, lines[0].end
	var commit []naiveLine
	sealed := false
	for _, l := range lines[1:] {
		switch {
		case l.kind == "blank" && (sealed || len(bytes.Trim(raw[l.offset:], "\n")) == 0):
			continue // padding
		case sealed: // a line behind the footer
		case l.kind == "record" && l.Seq == o.s+uint64(len(commit))+1:
			commit = append(commit, l)
			if !l.More {
				o.records, o.s, o.end = append(o.records, commit...), l.Seq, l.end
				commit = nil
			}
			continue
		case l.kind == "mark" && len(commit) == 0 && *l.Dur <= o.s:
			o.end = l.end
			continue
		case l.kind == "footer" && len(commit) == 0:
			if !naiveFooter(&l, raw, number, o.records) {
				return o
			}
			o.end, sealed = l.end, true
			continue
		}
		break // the first bad line
	}
	o.tail = len(bytes.Trim(raw[o.end:], "\n")) > 0
	for _, l := range lines {
		if l.offset >= o.end && l.kind != "bad" && (l.dur() > o.s || l.kind == "footer" && l.Last > o.s) {
			return o
		}
	}
	o.valid = true
	return o
}

// naiveStore is what FORMAT.md says of a whole store.
type naiveStore struct {
	newer    bool   // of a newer format
	why      string // it is damaged; "" if it is not
	file     string // ... where
	manifest naiveLine
	footers  []naiveLine
	records  []naiveLine // by seq
	broken   []uint64    // sealed segments that are damaged and hold only samples
	open     naiveOpen
	spans    [][2]uint64 // the numbers in each segment that is in their order
	recorded int64       // the greatest time in a mark of the open segment
	greatest uint64      // no valid line of a listed segment names a greater number
}

func naiveName(n uint64) string { return fmt.Sprintf("%020d.log", n) }

func naiveRead(files storeImage) (s naiveStore) {
	raw, ok := files["MANIFEST"]
	if !ok {
		return s.bad("MANIFEST", "missing")
	}
	lines := naiveLines(raw)
	if len(lines) > 0 && lines[0].newer {
		s.newer = true
		return s
	}
	if why := s.takeManifest(lines); why != "" {
		return s.bad("MANIFEST", why)
	}
	if s.unlisted(files); s.newer || s.why != "" {
		return s
	}
	for _, f := range s.footers {
		s.sealed(files, f)
	}
	if s.manifest.Open != 0 {
		s.readOpen(files)
	}
	slices.SortFunc(s.records, func(a, b naiveLine) int { return cmp.Compare(a.Seq, b.Seq) })
	return s
}

func (s naiveStore) bad(file, why string) naiveStore {
	s.file, s.why = file, why
	return s
}

func (s *naiveStore) takeManifest(lines []naiveLine) string {
	if len(lines) == 0 || lines[0].kind != "manifest" {
		return "no first line"
	}
	s.manifest, s.footers = lines[0], lines[1:]
	m := s.manifest
	if uint64(len(s.footers)) != m.Segments || m.Open >= m.Next || m.History > m.Seq {
		return "contradicts itself"
	}
	for i, f := range s.footers {
		if f.kind != "footer" || i > 0 && f.Sealed <= s.footers[i-1].Sealed || f.Sealed >= m.Next || f.Sealed == m.Open || f.Last >= m.Seq {
			return "a footer does not fit"
		}
	}
	return ""
}

// newerIn tells whether a segment is of a newer format.
func newerIn(raw []byte) bool {
	lines := naiveLines(raw)
	return len(lines) > 0 && lines[0].newer
}

// unlisted judges the segments that MANIFEST does not list.
func (s *naiveStore) unlisted(files storeImage) {
	for name, raw := range files {
		var n uint64
		if ok, _ := path.Match("[0-9]*.log", name); !ok {
			continue
		}
		fmt.Sscanf(name, "%d.log", &n)
		if n >= 1<<53 {
			continue // no segment can have that number
		}
		if n == s.manifest.Open || slices.ContainsFunc(s.footers, func(f naiveLine) bool { return f.Sealed == n }) {
			continue
		}
		lines := naiveLines(raw)
		s.newer = s.newer || newerIn(raw)
		if len(lines) == 0 || lines[0].kind != "header" || s.manifest.Open != 0 && slices.Contains(lines[0].From, s.manifest.Open) ||
			lines[0].From != nil && n < s.manifest.Next {
			continue
		}
		for _, l := range lines {
			if l.kind == "record" && l.Seq >= s.manifest.Seq {
				s.file, s.why = "MANIFEST", "older than the log"
			}
		}
	}
}

func (s *naiveStore) sealed(files storeImage, f naiveLine) {
	name := naiveName(f.Sealed)
	raw, ok := files[name]
	records, valid := naiveSealed(raw, s.manifest.Store, f)
	lines := naiveLines(raw)
	s.see(lines)
	switch {
	case valid:
		s.records = append(s.records, records...)
		if lines[0].Order != "key" {
			s.spans = append(s.spans, [2]uint64{f.First, f.Last})
		}
	case newerIn(raw):
		s.newer = true
	case ok && len(lines) > 0 && lines[0].kind == "header" && lines[0].Order == "seq" && lines[0].Store == s.manifest.Store && lines[0].Segment == f.Sealed:
		s.broken = append(s.broken, f.Sealed)
	case s.why == "":
		*s = s.bad(name, "not valid")
	}
}

func (s *naiveStore) readOpen(files storeImage) {
	name := naiveName(s.manifest.Open)
	s.open = naiveExamine(files[name], s.manifest.Store, s.manifest.Open)
	lines := naiveLines(files[name])
	s.see(lines)
	for _, l := range lines {
		if l.kind == "mark" {
			s.recorded = max(s.recorded, naiveMicros(l.Now))
		}
	}
	switch {
	case newerIn(files[name]):
		s.newer = true
	case s.why == "" && (!s.open.valid || s.open.first != s.manifest.Seq):
		*s = s.bad(name, "not valid")
	}
	s.records = append(s.records, s.open.records...)
}

// now is the store's time when it is opened at a time.
func (s *naiveStore) now(at time.Time) int64 {
	return max(at.UnixMicro(), naiveMicros(s.manifest.Clock), s.recorded)
}

func (s *naiveStore) see(lines []naiveLine) {
	for _, l := range lines {
		if l.kind == "record" {
			s.greatest = max(s.greatest, l.Seq)
		}
	}
}

// naiveState is what a reader must see of these records, as readStore writes it
// down: each key's newest record, all samples, and what a watcher is shown.
func naiveState(records []naiveLine, history uint64, now int64) storeState {
	st := storeState{keys: map[string]string{}, samples: map[string][]string{}}
	for _, l := range records {
		if l.Ser != nil {
			st.samples[l.name] = append(st.samples[l.name], fmt.Sprintf("%d %d %q", l.Seq, l.at, l.value))
		} else if delete(st.keys, l.name); !l.Del && (l.Exp == "" || now < l.exp) {
			st.keys[l.name] = fmt.Sprintf("%d %d %q", l.Seq, l.exp, l.value)
		}
		if l.Seq >= history {
			st.watched = append(st.watched, fmt.Sprintf("%d %q %v", l.Seq, l.name, l.More))
		}
	}
	return st
}

// crcLine ends an object with its checksum.
func crcLine(object string) string {
	return fmt.Sprintf("%s %08x\n", object, crc32.ChecksumIEEE([]byte(object)))
}
