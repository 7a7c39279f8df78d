//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/replace"
)

var intakeKills = flag.Int("intake.kills", 40, "how often the intake is killed while it works")

// annalsCommand is the command itself as a process to be.
func annalsCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe)
	cmd.Args = append([]string{"annals"}, args...) // by which TestMain knows what to be
	return cmd
}

// tool finds a program that a test needs. Where it is missing the test is not done,
// and must be where CI is set.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is not installed, and CI is set", name)
	}
	t.Skipf("NOT CHECKED: %s is not installed", name)
	return ""
}

// The Python producer of the page drops items while the intake is killed again and
// again, at any moment. Afterwards each item is there once, in the order of the names.
func TestKilledIntakeIngestsEachItemOnce(t *testing.T) {
	dir := t.TempDir()
	store, spool, script := filepath.Join(dir, "d"), filepath.Join(dir, "spool"), filepath.Join(dir, "producer.py")
	must(t, os.Mkdir(spool, 0o700))
	must(t, os.WriteFile(script, []byte(pageBlock(t, "python", "producer")), 0o600))
	python := tool(t, "python3")
	rnd := intakeRandom(t)
	total, atWork := 0, 0
	for killed := 0; killed < *intakeKills; {
		const items = 400
		producer := exec.Command(python, script, spool, strconv.Itoa(items), strconv.Itoa(total))
		var complaint bytes.Buffer
		producer.Stderr = &complaint
		must(t, producer.Start())
		total += items
		ended := make(chan error, 1)
		go func() { ended <- producer.Wait() }()
		for working := true; working; {
			intake := annalsCommand(t, "ingest", store, spool, "--follow", "--poll", "1ms")
			var said bytes.Buffer
			intake.Stderr = &said
			must(t, intake.Start())
			delay := 60 * time.Millisecond
			if intakeUnderRace { // which makes its start take longer
				delay *= 5
			}
			time.Sleep(10*time.Millisecond + rand.N(delay))
			must(t, intake.Process.Signal(syscall.SIGKILL))
			intake.Wait()
			if said.Len() > 0 {
				t.Fatalf("the intake says: %s", &said)
			}
			killed++
			entries, err := os.ReadDir(spool)
			must(t, err)
			if strings.Contains(names(entries), takenPrefix) {
				atWork++
			}
			select {
			case err := <-ended:
				if err != nil {
					t.Fatalf("the producer: %v: %s", err, &complaint)
				}
				working = false
			default:
			}
		}
		if rnd.IntN(3) == 0 { // some rounds begin with much that was left
			must(t, annalsCommand(t, "ingest", store, spool).Run())
		}
	}
	out, err := annalsCommand(t, "ingest", store, spool, "--json").Output()
	must(t, err)
	t.Logf("%d items; %d of the kills came when items were taken; the last intake: %s", total, atWork, bytes.TrimSpace(out))
	if atWork == 0 {
		t.Error("no kill came when items were taken")
	}
	countSamples(t, store, total)
	entries, err := os.ReadDir(spool)
	must(t, err)
	if got := names(entries); got != ".annals.lock .annals.spool" {
		t.Errorf("in the spool are %s", got)
	}
	must(t, annalsCommand(t, "verify", store).Run())
}

// countSamples checks that the samples with the numbers below total are all there
// once and in order, and nothing else is.
func countSamples(t *testing.T, dir string, total int) {
	t.Helper()
	store, err := annals.Open(dir, nil)
	must(t, err)
	defer store.Close()
	times, next, turns := make([]int, total), 0, ""
	for sample, err := range store.Samples("press-7", annals.Window{}) {
		must(t, err)
		var value struct{ N int }
		must(t, json.Unmarshal(sample.Value, &value))
		if value.N != next {
			turns += fmt.Sprintf(" sample %d is number %d, want %d;", sample.Seq, value.N, next)
		}
		times[value.N]++
		next = value.N + 1
	}
	for n, count := range times {
		if count != 1 {
			t.Errorf("number %d is there %d times", n, count)
		}
	}
	if turns != "" || next != total {
		t.Errorf("the order is another:%.500s the last is %d, want %d", turns, next-1, total-1)
	}
	if stats := store.Stats(); stats.Keys != 0 || stats.Samples != uint64(total) {
		t.Errorf("%d keys, %d samples", stats.Keys, stats.Samples)
	}
}

// What replace.Spool puts is an item, and Ctrl-C ends an intake that follows well.
func TestIngestFollowsASpoolOfGo(t *testing.T) {
	dir := t.TempDir()
	store, path := filepath.Join(dir, "d"), filepath.Join(dir, "spool")
	spool, err := replace.OpenSpool(path)
	must(t, err)
	intake := annalsCommand(t, "ingest", store, path, "--follow", "--poll", "5ms", "--json")
	var stdout, stderr bytes.Buffer
	intake.Stdout, intake.Stderr = &stdout, &stderr
	must(t, intake.Start())
	defer intake.Process.Kill()
	const items = 20
	for n := range items {
		_, err := spool.Put(fmt.Appendf(nil, `{"ser":"press-7","val":{"n":%d}}`, n))
		must(t, err)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		entries, err := os.ReadDir(path)
		must(t, err)
		if names(entries) == ".annals.lock .annals.spool" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("items are left: %s", &stderr)
		}
	}
	must(t, intake.Process.Signal(syscall.SIGTERM))
	if err := intake.Wait(); err != nil || stdout.String() != `{"items":20,"records":20,"again":0,"rejected":0,"stuck":0}`+"\n" {
		t.Errorf("%v: %s%s", err, &stdout, &stderr)
	}
	countSamples(t, store, items)
}
