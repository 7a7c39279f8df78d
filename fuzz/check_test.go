package fuzz_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals"
)

var (
	checkSeed = flag.Uint64("check.seed", 1, "seed of TestCheckerAgreesWithVerify")
	checkHits = flag.Int("check.hits", 120, "damaged places of TestCheckerAgreesWithVerify, in each store")
)

// python is the interpreter that runs check.py. A machine without it can't
// compare the two: that fails where everything must be checked, and is said
// elsewhere.
func python(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("python3")
	if err != nil && os.Getenv("CI") != "" {
		t.Fatal("python3 is not installed, and CI is set: check.py must be tried")
	}
	if err != nil {
		t.Skip("NOT CHECKED: python3 is not installed, so fuzz/check.py was not tried")
	}
	return path
}

// runCheck runs check.py as a user does.
func runCheck(t *testing.T, dir string) (whole bool, out string) {
	t.Helper()
	raw, err := exec.Command(python(t), "check.py", dir).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		require.Equal(t, 1, exit.ExitCode(), "%s", raw)
		require.NotContains(t, string(raw), "Traceback")
		return false, string(raw)
	}
	require.NoError(t, err)
	return true, string(raw)
}

func verify(t *testing.T, dir string) annals.Report {
	t.Helper()
	report, err := annals.Verify(t.Context(), dir, nil)
	require.NoError(t, err)
	return report
}

func TestCheckerIsAtMostFortyLines(t *testing.T) {
	raw, err := os.ReadFile("check.py")
	require.NoError(t, err)
	require.LessOrEqual(t, bytes.Count(raw, []byte("\n")), 40)
	for l := range bytes.Lines(raw) {
		require.LessOrEqual(t, len(l), 180)
	}
}

// small makes many segments of few records.
func small(t *testing.T, dir string) *annals.Store {
	t.Helper()
	db, err := annals.Open(dir, &annals.Options{SegmentSize: 4096, Compaction: annals.Compaction{Off: true}})
	require.NoError(t, err)
	return db
}

// fill writes n steps of everything that a record can hold.
func fill(t *testing.T, db *annals.Store, n int) {
	t.Helper()
	values := []string{`{"name":"Ann","age":41}`, "two\nlines", "\x00\xff", "", `[1,2,` + strings.Repeat(" ", 100) + `3]`, strings.Repeat("é", 50), `"\ud800"`}
	for i := range n {
		v := []byte(values[i%len(values)])
		key := fmt.Sprintf("key \"%d\"", i%50)
		require.NoError(t, db.Put(key, v))
		_, err := db.Append("hall", v, annals.At(time.Unix(int64(i), 0)))
		require.NoError(t, err)
		var b annals.Batch
		b.Put("\xff\x00"+key, v)
		b.Delete(fmt.Sprintf("key \"%d\"", (i+7)%50))
		b.Append("日本", v)
		_, err = db.Apply(&b)
		require.NoError(t, err)
	}
}

// stores are whole stores of each kind, by what is special about them.
func stores(t *testing.T) map[string]string {
	t.Helper()
	root := t.TempDir()
	dirs := map[string]string{"golden": filepath.Join("..", "segment", "testdata", "v1")}
	for _, name := range []string{"empty", "closed", "compacted"} {
		dirs[name] = filepath.Join(root, name)
		db := small(t, dirs[name])
		if name != "empty" {
			fill(t, db, 100)
		}
		if name == "compacted" {
			_, err := db.Compact(t.Context(), nil)
			require.NoError(t, err)
			fill(t, db, 20)
		}
		require.NoError(t, db.Close())
	}
	db := small(t, filepath.Join(root, "live"))
	for i := range 3 {
		fill(t, db, 40)
		name := fmt.Sprintf("killed %d", i)
		dirs[name] = filepath.Join(root, name)
		require.NoError(t, os.CopyFS(dirs[name], os.DirFS(filepath.Join(root, "live"))))
	}
	require.NoError(t, db.Close())
	dirs["recovered"] = filepath.Join(root, "recovered")
	require.NoError(t, os.CopyFS(dirs["recovered"], os.DirFS(dirs["killed 2"])))
	require.NoError(t, small(t, dirs["recovered"]).Close())
	return dirs
}

// check.py shares no code with annals, so where the two agree, neither has
// misread FORMAT.md.
func TestCheckerAgreesWithVerify(t *testing.T) {
	dirs := stores(t)
	t.Run("on whole stores", func(t *testing.T) { agreeOnWholeStores(t, dirs) })
	t.Run("on missing and foreign files", func(t *testing.T) { agreeOnMissingAndForeignFiles(t, dirs) })
	t.Run("on damage", func(t *testing.T) { agreeOnDamage(t, dirs) })
	t.Run("on torn tails", func(t *testing.T) { agreeOnTornTails(t, dirs["killed 0"]) })
}

func agreeOnWholeStores(t *testing.T, dirs map[string]string) {
	for name, dir := range dirs {
		report := verify(t, dir)
		require.Empty(t, report.Problems, name)
		whole, out := runCheck(t, dir)
		require.True(t, whole, "%s: %s", name, out)
		require.Equal(t, fmt.Sprintf("whole, with %d records\n", report.Records), out, name)
		if name == "closed" {
			require.Greater(t, report.Segments, 10)
		}
	}
}

// openSegment is the last segment of a killed store.
func openSegment(t *testing.T, dir string) string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "*.log"))
	require.NoError(t, err)
	return all[len(all)-1]
}

// A killed store may end anywhere in what was being written.
func agreeOnTornTails(t *testing.T, src string) {
	original, err := os.ReadFile(openSegment(t, src))
	require.NoError(t, err)
	lines := bytes.TrimRight(original, "\n")
	last := bytes.LastIndexByte(lines, '\n') + 1
	for why, end := range map[string]string{
		"padded":             string(original),
		"without padding":    string(lines) + "\n",
		"cut":                string(lines[:len(lines)-3]),
		"cut in padding":     string(lines[:len(lines)-3]) + strings.Repeat("\n", 4096),
		"junk":               string(lines) + "\njunk",
		"NULs":               string(lines) + "\n" + strings.Repeat("\x00", 700) + "\n\n",
		"junk after padding": string(lines) + "\n\n\nx\n",
		"a line twice":       string(lines) + "\n" + string(lines[last:]) + "\n",
	} {
		require.NoError(t, os.WriteFile(openSegment(t, src), []byte(end), 0o600))
		report := verify(t, src)
		require.Empty(t, report.Problems, why)
		whole, out := runCheck(t, src)
		require.True(t, whole, "%s: %s", why, out)
		require.Equal(t, report.Tail != nil, strings.Contains(out, "torn tail"), "%s: %s", why, out)
		require.Contains(t, out, fmt.Sprintf("whole, with %d records\n", report.Records), why)
		if report.Tail != nil {
			require.Contains(t, out, fmt.Sprintf("at offset %d", report.Tail.Offset), why)
			require.Contains(t, out, report.Tail.Path)
		}
	}
}

func agreeOnMissingAndForeignFiles(t *testing.T, dirs map[string]string) {
	for why, hurt := range map[string]func(dir string) error{
		"segment missing":       func(dir string) error { return os.Remove(filepath.Join(dir, "00000000000000000003.log")) },
		"segment empty":         func(dir string) error { return os.Truncate(filepath.Join(dir, "00000000000000000003.log"), 0) },
		"segment cut":           func(dir string) error { return os.Truncate(filepath.Join(dir, "00000000000000000003.log"), 1000) },
		"MANIFEST empty":        func(dir string) error { return os.Truncate(filepath.Join(dir, "MANIFEST"), 0) },
		"segments exchanged":    func(dir string) error { return exchange(dir, 3, 4) },
		"another store's file":  func(dir string) error { return copyFile(dirs["compacted"], dir) },
		"a footer line missing": func(dir string) error { return cutLastLine(filepath.Join(dir, "00000000000000000003.log")) },
		"MANIFEST a line short": func(dir string) error { return cutLastLine(filepath.Join(dir, "MANIFEST")) },
	} {
		dir := filepath.Join(t.TempDir(), "store")
		require.NoError(t, os.CopyFS(dir, os.DirFS(dirs["closed"])))
		require.NoError(t, hurt(dir), why)
		require.NotEmpty(t, verify(t, dir).Problems, why)
		whole, out := runCheck(t, dir)
		require.False(t, whole, "%s: %s", why, out)
	}
}

func segmentPath(dir string, n int) string { return filepath.Join(dir, fmt.Sprintf("%020d.log", n)) }

func exchange(dir string, a, b int) error {
	tmp := segmentPath(dir, a) + "x"
	return errors.Join(os.Rename(segmentPath(dir, a), tmp), os.Rename(segmentPath(dir, b), segmentPath(dir, a)), os.Rename(tmp, segmentPath(dir, b)))
}

// copyFile puts the last segment of one store into another, whatever its number
// there is.
func copyFile(from, to string) error {
	all, err := filepath.Glob(filepath.Join(from, "*.log"))
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(all[len(all)-1])
	if err != nil {
		return err
	}
	return os.WriteFile(segmentPath(to, 3), raw, 0o600)
}

func cutLastLine(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, raw[:bytes.LastIndexByte(raw[:len(raw)-1], '\n')+1], 0o600)
}

// checker is check.py run again and again in one interpreter.
type checker struct {
	in  io.Writer
	out *bufio.Reader
}

const checkerLoop = `
import contextlib, io, json, runpy, sys
for line in sys.stdin:
    sys.argv, out, why = ["check.py", json.loads(line)], io.StringIO(), None
    with contextlib.redirect_stdout(out):
        try: runpy.run_path("check.py")
        except SystemExit as exit: why = str(exit)
    print(json.dumps(why), flush=True)
`

func startChecker(t *testing.T) checker {
	t.Helper()
	cmd := exec.Command(python(t), "-c", checkerLoop)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		in.Close()
		require.NoError(t, cmd.Wait())
	})
	return checker{in, bufio.NewReader(out)}
}

// check returns what is damaged, "" for nothing.
func (c checker) check(t *testing.T, dir string) (why string) {
	t.Helper()
	require.NoError(t, json.NewEncoder(c.in).Encode(dir))
	answer, err := c.out.ReadBytes('\n')
	require.NoError(t, err, "check.py died")
	require.NoError(t, json.Unmarshal(answer, &why))
	return why
}

// damage is one changed byte of one file.
type damage struct {
	path   string
	offset int
	was    byte
	now    byte
}

func (d damage) String() string {
	return fmt.Sprintf("%q at %d: %#x became %#x", d.path, d.offset, d.was, d.now)
}

// anyDamage changes a byte of MANIFEST or of a segment: a bit, or to anything.
func anyDamage(r *rand.Rand, files []string, contents map[string][]byte) damage {
	d := damage{path: files[r.IntN(len(files))]}
	if r.IntN(6) == 0 {
		d.path = files[0]
	}
	raw := contents[d.path]
	d.offset = r.IntN(len(raw))
	if r.IntN(4) == 0 { // near the end, where the footer is
		d.offset = len(raw) - 1 - r.IntN(min(len(raw), 130))
	}
	d.was = raw[d.offset]
	for d.now = d.was; d.now == d.was; {
		d.now = []byte{d.was ^ 1<<r.IntN(8), byte(r.Uint32()), '\n', 0}[r.IntN(4)]
	}
	return d
}

func agreeOnDamage(t *testing.T, dirs map[string]string) {
	c := startChecker(t)
	for _, name := range []string{"closed", "compacted", "recovered"} {
		r := rand.New(rand.NewPCG(*checkSeed, 1))
		dir := dirs[name]
		files, err := filepath.Glob(filepath.Join(dir, "*.log"))
		require.NoError(t, err)
		files = append([]string{filepath.Join(dir, "MANIFEST")}, files...)
		contents := map[string][]byte{}
		for _, path := range files {
			contents[path], err = os.ReadFile(path)
			require.NoError(t, err)
		}
		require.Empty(t, c.check(t, dir))
		for range *checkHits {
			d := anyDamage(r, files, contents)
			raw := bytes.Clone(contents[d.path])
			raw[d.offset] = d.now
			require.NoError(t, os.WriteFile(d.path, raw, 0o600))
			requireAgreement(t, c, dir, d)
			require.NoError(t, os.WriteFile(d.path, contents[d.path], 0o600))
		}
		require.Empty(t, c.check(t, dir))
	}
}

// requireAgreement says that both find the damage, in the same file at the same
// line.
func requireAgreement(t *testing.T, c checker, dir string, d damage) {
	t.Helper()
	replay := fmt.Sprintf("%v; replay: go test ./fuzz -run TestCheckerAgreesWithVerify -check.seed %d", d, *checkSeed)
	report := verify(t, dir)
	require.NotEmpty(t, report.Problems, replay)
	first := report.Problems[0]
	require.Equal(t, d.path, first.Path, replay)
	require.LessOrEqual(t, first.Offset, int64(d.offset), replay)
	require.Contains(t, c.check(t, dir), fmt.Sprintf("DAMAGED: %s at offset %d:", first.Path, first.Offset), replay)
}
