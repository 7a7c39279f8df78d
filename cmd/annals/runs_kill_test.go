package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/annalsdb/annals"
)

// The benchmarks that the harness runs: a package of its own, in a directory that
// the test makes.
const benchPackage = `package tiny

import (
	"hash/crc32"
	"testing"
)

var sink uint32

func sum(b *testing.B, size int) {
	p := make([]byte, size)
	for b.Loop() {
		sink += crc32.ChecksumIEEE(p)
	}
	b.SetBytes(int64(size))
}

func BenchmarkA(b *testing.B) { sum(b, 1000) }
func BenchmarkB(b *testing.B) { sum(b, 2000) }
func BenchmarkC(b *testing.B) { sum(b, 3000) }
func BenchmarkD(b *testing.B) { sum(b, 4000) }
func BenchmarkE(b *testing.B) { sum(b, 5000) }
func BenchmarkF(b *testing.B) { sum(b, 6000) }
`

var benchKeys = []string{"A", "B", "C", "D", "E", "F"}

func writeBenchPackage(t *testing.T, dir string) {
	t.Helper()
	for name, text := range map[string]string{"go.mod": "module tiny\n\ngo 1.26\n", "tiny_test.go": benchPackage} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func goTestBench(dir, which string, samples int) *exec.Cmd {
	cmd := exec.Command("go", "test", "-run=^$", "-bench="+which, "-benchtime=2ms", "-count="+strconv.Itoa(samples), ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	return cmd
}

// harnessMain is a harness as somebody would write it: journal-harness STORE
// PACKAGE COUNT. It says on standard output what it does.
func harnessMain() {
	if err := harness(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
}

func harness(store, dir, samples string) error {
	n, err := strconv.Atoi(samples)
	if err != nil {
		return err
	}
	db, err := annals.Open(store, nil)
	if err != nil {
		return err
	}
	defer db.Close()
	j, err := annals.OpenJournal(db, "nightly", map[string]int{"count": n})
	if err != nil {
		return err
	}
	missing, err := j.Resume(benchKeys)
	if err != nil {
		return err
	}
	for _, key := range missing {
		fmt.Println("run", key)
		out, err := goTestBench(dir, "^Benchmark"+key+"$", n).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		if err := j.Record(key, string(out)); err != nil {
			return err
		}
		fmt.Println("recorded", key)
	}
	return nil
}

// harnessSession is a run of the harness.
type harnessSession struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines *bufio.Scanner
	ran   []string // the benchmarks that it began
	acked []string // those that it was told are recorded
}

func startHarness(t *testing.T, args ...string) *harnessSession {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &harnessSession{t: t, cmd: exec.Command(exe)}
	s.cmd.Args = append([]string{"journal-harness"}, args...) // by which TestMain knows what to be
	s.cmd.Stderr = os.Stderr
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.lines = bufio.NewScanner(out)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.cmd.Process.Kill(); s.cmd.Wait() })
	return s
}

// until reads what the harness says up to a line; "" is its end.
func (s *harnessSession) until(line string) {
	s.t.Helper()
	for s.lines.Scan() {
		what, key, _ := strings.Cut(s.lines.Text(), " ")
		switch what {
		case "run":
			s.ran = append(s.ran, key)
		case "recorded":
			s.acked = append(s.acked, key)
		default:
			s.t.Fatal(s.lines.Text())
		}
		if s.lines.Text() == line {
			return
		}
	}
	if line != "" {
		s.t.Fatalf("the harness ended before %q: %v", line, s.cmd.Wait())
	}
	if err := s.cmd.Wait(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *harnessSession) kill() {
	s.cmd.Process.Kill()
	s.cmd.Wait()
}

// progressElsewhere asks, as another process, how far the harness is.
func progressElsewhere(t *testing.T, store string) (info annals.JournalInfo, keys []string) {
	t.Helper()
	r, err := annals.OpenReader(store, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	j, err := annals.ReadJournal(r, "nightly")
	if err != nil {
		t.Fatal(err)
	}
	for result, err := range j.Results() {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, result.Key)
	}
	if info, err = j.Info(); err != nil {
		t.Fatal(err)
	}
	return info, keys
}

// A harness that runs go test -bench for each key is killed twice in the middle of a
// benchmark, and once between two. What was recorded is not run again, all else is,
// and in the whole log each key is written once.
func TestKilledHarnessRunsWhatIsMissing(t *testing.T) {
	store, dir := filepath.Join(t.TempDir(), "data"), t.TempDir()
	writeBenchPackage(t, dir)
	var kept []string
	for i, last := range []string{"run C", "recorded D", "run E", ""} {
		s := startHarness(t, store, dir, "6")
		s.until(last)
		if last != "" {
			if strings.HasPrefix(last, "run") {
				time.Sleep(50 * time.Millisecond) // into the benchmark
			}
			if i == 0 { // while it is at work
				info, keys := progressElsewhere(t, store)
				if info.Done < 2 || info.Expected != len(benchKeys) || !slices.Equal(keys[:2], []string{"A", "B"}) {
					t.Errorf("progress from another process is %+v %v", info, keys)
				}
			}
			s.kill()
		}
		if missing := benchKeys[len(kept):]; !slices.Equal(s.ran, missing[:min(len(s.ran), len(missing))]) {
			t.Errorf("session %d ran %v, missing were %v", i, s.ran, missing)
		}
		info, keys := progressElsewhere(t, store)
		if info.Done != len(keys) || len(keys) < len(kept)+len(s.acked) || !slices.Equal(keys, benchKeys[:len(keys)]) {
			t.Fatalf("session %d: %v were kept before, it recorded %v, there are %v", i, kept, s.acked, keys)
		}
		kept = keys
	}
	if len(kept) != len(benchKeys) {
		t.Fatalf("recorded are %v of %v", kept, benchKeys)
	}
	onceInTheLog(t, store)
	comparesWithAPipe(t, store, dir)
}

// onceInTheLog counts the writes of each result.
func onceInTheLog(t *testing.T, store string) {
	t.Helper()
	r, err := annals.OpenReader(store, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	writes := map[string]int{}
	last := r.Stats().LastSeq
	for record, err := range r.Watch(t.Context(), 1) {
		if err != nil {
			t.Fatal(err)
		}
		writes[record.Key]++
		if record.Seq == last {
			break
		}
	}
	for _, key := range benchKeys {
		if n := writes["journal/nightly/"+key]; n != 1 {
			t.Errorf("%s was written %d times", key, n)
		}
	}
}

// comparesWithAPipe adds a run of all the benchmarks from a pipe and compares the two.
// A harness with other arguments is refused.
func comparesWithAPipe(t *testing.T, store, dir string) {
	t.Helper()
	out, err := goTestBench(dir, ".", 6).Output()
	if err != nil {
		t.Fatal(err)
	}
	annalsWith(t, out, "runs", "add", store, "piped")
	table := annalsWith(t, nil, "runs", "compare", store, "nightly", "piped", "--metric", "ns/op")
	for _, key := range benchKeys {
		row := regexp.MustCompile(`(?m)^` + key + `\S*\s+\S+ ± [0-9]+%\s+\S+ ± [0-9]+%\s+(~|[-+][0-9.]+%) \(p=[01]\.[0-9]{3} n=6\)$`)
		if !row.MatchString(table) {
			t.Errorf("no row of %s in\n%s", key, table)
		}
	}
	s := startHarness(t, store, dir, "7")
	if s.lines.Scan(); !strings.Contains(s.lines.Text(), `"nightly" was begun with sha256:`) || !strings.Contains(s.lines.Text(), `"count" was 6, now it is 7`) {
		t.Errorf("another configuration gives %q", s.lines.Text())
	}
}

// annalsWith runs annals with an input from a pipe and returns its output.
func annalsWith(t *testing.T, input []byte, args ...string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe)
	cmd.Args = append([]string{"annals"}, args...)
	cmd.Stdin = bytes.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v: %s", args, err, stderr.Bytes())
	}
	return string(out)
}
