package segment

import (
	"bytes"
	"encoding/json"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// FORMAT.md is what others build readers from, so it is tested like code: its
// expressions and limits, applied as it says, must accept the lines that this
// package accepts, and no other.

const formatPage = "../FORMAT.md"

// block returns the code of the n-th fenced block of a language.
func block(t testing.TB, language string, n int) string {
	t.Helper()
	page, err := os.ReadFile(formatPage)
	require.NoError(t, err)
	all := regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(string(page), -1)
	require.Greater(t, len(all), n)
	return all[n][1]
}

// formatRegex is the expression of a name, with all others put in, except that
// instead has something else for one of them.
func formatRegex(t testing.TB, name string, instead ...string) string {
	t.Helper()
	parts := map[string]string{}
	for l := range strings.Lines(block(t, "regex", 0)) {
		name, expression, found := strings.Cut(strings.TrimSuffix(l, "\n"), " ")
		require.True(t, found)
		parts[name] = strings.TrimLeft(expression, " ")
	}
	for i := 0; i < len(instead); i += 2 {
		require.Contains(t, parts, instead[i])
		parts[instead[i]] = instead[i+1]
	}
	reference := regexp.MustCompile(`<(\w+)>`)
	expression := "<" + name + ">"
	for reference.MatchString(expression) {
		expression = reference.ReplaceAllStringFunc(expression, func(ref string) string {
			part, ok := parts[ref[1:len(ref)-1]]
			require.True(t, ok, "FORMAT.md does not say what %s is", ref)
			return "(?:" + part + ")"
		})
	}
	return expression
}

// pageReader reads lines as FORMAT.md says.
type pageReader struct {
	line, footer, number, time, name *regexp.Regexp
}

func newPageReader(t testing.TB) pageReader {
	whole := func(expression string) *regexp.Regexp { return regexp.MustCompile(`\A(?:` + expression + `)\z`) }
	return pageReader{
		line:   whole(formatRegex(t, "line")),
		footer: whole(formatRegex(t, "footer") + " .{8}\n"),
		// Where an envelope has numbers, times and names; values are cut off first.
		number: regexp.MustCompile(`":\[?([0-9]+)|,([0-9]+)`),
		time:   regexp.MustCompile(`":(-?[0-9]+\.[0-9]+)`),
		name:   regexp.MustCompile(`,"(?:key|ser)":(` + formatRegex(t, "string") + `)`),
	}
}

func (p pageReader) valid(l []byte) bool {
	if len(l) < crcSize {
		return false
	}
	object, sum := l[:len(l)-crcSize], string(l[len(l)-crcSize+1:len(l)-1])
	want, err := strconv.ParseUint(sum, 16, 32)
	if err != nil || uint32(want) != crc32.ChecksumIEEE(object) || !p.line.Match(l) {
		return false
	}
	envelope := object
	if i := bytes.Index(object, []byte(`,"val":`)); i >= 0 && bytes.HasPrefix(object, []byte(`{"seq":`)) && !insideName(p, object, i) {
		envelope = object[:i]
	}
	return p.limits(envelope, p.footer.Match(l))
}

// insideName tells whether what looks like a value field is part of a name.
func insideName(p pageReader, object []byte, at int) bool {
	m := p.name.FindIndex(object)
	return m != nil && m[0] < at && at < m[1]
}

// limits are those that the page lists beside the expressions.
func (p pageReader) limits(envelope []byte, footer bool) bool {
	if m := p.name.FindSubmatchIndex(envelope); m != nil {
		if !utf8.Valid(envelope[m[2]:m[3]]) {
			return false
		}
		envelope = append(bytes.Clone(envelope[:m[0]]), envelope[m[1]:]...)
	}
	for _, m := range p.time.FindAllSubmatch(envelope, -1) {
		micros, err := strconv.ParseInt(strings.Replace(string(m[1]), ".", "", 1), 10, 64)
		if err != nil || micros <= -1<<53 || micros >= 1<<53 || micros == 0 && m[1][0] == '-' {
			return false
		}
	}
	var numbers []uint64
	for _, m := range p.number.FindAllSubmatch(p.time.ReplaceAll(envelope, nil), -1) {
		n, err := strconv.ParseUint(string(m[1])+string(m[2]), 10, 64)
		if err != nil || n > 1<<53-1 {
			return false
		}
		numbers = append(numbers, n)
	}
	return !footer || numbers[1] <= numbers[2] // sealed, first, last
}

// accepted tells whether this package takes the line, in a segment or in MANIFEST.
func accepted(l []byte) bool {
	s := NewScanner(bytes.NewReader(l), 0, int64(len(l)))
	if !s.Scan() {
		return false
	}
	if int(s.Line().Size) == len(l) && s.Line().Kind != BadLine && s.Line().Kind != BlankLine {
		return true
	}
	object, err := checkLine(bytes.TrimSuffix(l, []byte("\n")))
	if err != nil || !bytes.HasSuffix(l, []byte("\n")) {
		return false
	}
	_, _, err = parseManifestHead(object)
	return err == nil
}

func TestFormatPageAndDecoderAgree(t *testing.T) {
	p := newPageReader(t)
	agree := func(want bool, l string, why string) {
		t.Helper()
		require.Equal(t, want, accepted([]byte(l)), "%s: %q", why, l)
		require.Equal(t, want, p.valid([]byte(l)), "FORMAT.md: %s: %q", why, l)
	}
	for _, objects := range goodObjects {
		for _, o := range objects {
			agree(true, line(o), "good")
		}
	}
	agree(true, line(manifestText), "good")
	for why, c := range badLines {
		agree(false, c.line, why)
	}
	for why, o := range badObjects {
		agree(why == "MANIFEST's head", line(o), why)
	}
	for name := range goldenSums {
		for l := range bytes.Lines(golden(t, name)) {
			agree(len(l) > 1, string(l), name)
		}
	}
}

func TestFormatPageAndDecoderAgreeOnMutations(t *testing.T) {
	p := newPageReader(t)
	r := rand.New(rand.NewPCG(6, 6))
	valid := 0
	const n = 15_000
	for range n {
		l := []byte(mutated(r))
		want := accepted(l)
		require.Equal(t, want, p.valid(l), "%q", l)
		if want {
			valid++
		}
	}
	require.Greater(t, valid, n/50)
	require.Greater(t, n-valid, n/50)
}

func TestFormatPageAgreesWithTheWriter(t *testing.T) {
	p := newPageReader(t)
	r := rand.New(rand.NewPCG(7, 7))
	for range 2_000 {
		rec := anyRecord(r)
		require.True(t, p.valid(AppendRecord(nil, &rec)), "%q", AppendRecord(nil, &rec))
	}
}

// tool makes sure that a program which a recipe needs is there. A machine
// without it can't check the recipe: that fails where everything must be
// checked, and is said elsewhere.
func tool(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err == nil {
			continue
		}
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is not installed, and CI is set: the recipes of FORMAT.md must be checked", name)
		}
		t.Skipf("NOT CHECKED: %s is not installed, so this recipe of FORMAT.md was not tried", name)
	}
}

func recipe(t *testing.T, n int, file string) string {
	t.Helper()
	cmd := exec.Command("sh", "-e", "-c", block(t, "sh", n))
	cmd.Dir = ".."
	path, err := filepath.Abs(file)
	require.NoError(t, err)
	cmd.Env = append(os.Environ(), "FILE="+path, "STORE="+path)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Fatalf("%v: %s%s", err, out, exit.Stderr)
	}
	require.NoError(t, err)
	return string(out)
}

func TestJQReadsSegments(t *testing.T) {
	tool(t, "sh", "sed", "jq")
	for name, records := range goldenRecords {
		out := recipe(t, 0, filepath.Join(goldenDir, name))
		d := json.NewDecoder(strings.NewReader(out))
		for i := range records {
			var got struct{ Seq uint64 }
			require.NoError(t, d.Decode(&got))
			require.Equal(t, records[i].Seq, got.Seq)
		}
		require.False(t, d.More(), "%s", out)
	}
}

// jq on all that the writer can spell, not just on friendly lines.
func TestJQReadsWhateverIsWritten(t *testing.T) {
	tool(t, "sh", "sed", "jq")
	r := rand.New(rand.NewPCG(8, 8))
	var file bytes.Buffer
	var want []Record
	file.WriteString(header(2, 1))
	for seq := uint64(1); seq <= 2_000; seq++ {
		rec := anyRecord(r)
		rec.Seq = seq
		if seq == 7 {
			rec = Record{Seq: seq, Kind: Put, Name: "deep", Value: []byte(nested(maxDepth))}
		}
		file.Write(AppendRecord(nil, &rec))
		want = append(want, rec)
	}
	file.WriteString(strings.Repeat("\n", 5000))
	path := filepath.Join(t.TempDir(), "2.log")
	require.NoError(t, os.WriteFile(path, file.Bytes(), 0o600))
	d := json.NewDecoder(strings.NewReader(recipe(t, 0, path)))
	for i := range want {
		var got struct {
			Seq      uint64
			Key, Ser string
			K64      []byte
		}
		require.NoError(t, d.Decode(&got))
		require.Equal(t, want[i].Seq, got.Seq)
		require.Equal(t, want[i].Name, got.Key+got.Ser+string(got.K64))
	}
	require.False(t, d.More())
}

func TestStockToolsComputeTheChecksum(t *testing.T) {
	tool(t, "sh", "sed", "gzip", "tail", "od", "python3")
	out := strings.Fields(recipe(t, 1, filepath.Join(goldenDir, goldenWritten)))
	require.Len(t, out, 4)
	require.Equal(t, []string{"c44933b2", "c44933b2", "c44933b2"}, out[1:])
}

// The expression in check.py is the page's, but for the spelling of values.
func TestTheCheckersExpressionIsThePages(t *testing.T) {
	tool(t, "python3")
	page := regexp.MustCompile(`\A(?:` + formatRegex(t, "line", "value", `"(?:val|txt|b64)":[^\x00-\x1f]+`) + `)\z`)
	var lines [][]byte
	for _, objects := range goodObjects {
		for _, o := range objects {
			lines = append(lines, []byte(line(o)))
		}
	}
	for _, o := range badObjects {
		lines = append(lines, []byte(line(o)))
	}
	for _, c := range badLines {
		lines = append(lines, []byte(c.line))
	}
	r := rand.New(rand.NewPCG(9, 9))
	for range 5_000 {
		lines = append(lines, []byte(mutated(r)))
	}
	in, err := json.Marshal(lines) // as base64
	require.NoError(t, err)
	cmd := exec.Command("python3", "-c", `
import base64, json, runpy, sys
sys.argv = ["check.py", "`+goldenDir+`"]
LINE = runpy.run_path("../fuzz/check.py")["LINE"]
print(json.dumps([LINE.fullmatch(base64.b64decode(line)) is not None for line in json.load(sys.stdin)]))`)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	require.NoError(t, err)
	_, out, found := bytes.Cut(out, []byte("\n")) // the golden store is whole
	require.True(t, found)
	var got []bool
	require.NoError(t, json.Unmarshal(out, &got))
	require.Len(t, got, len(lines))
	for i, l := range lines {
		require.Equal(t, page.Match(l), got[i], "%q", l)
	}
}
