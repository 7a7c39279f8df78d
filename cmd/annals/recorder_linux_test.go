package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/annalsdb/annals"
	"golang.org/x/sys/unix"
)

// lines gathers what a process says, line by line.
type lines struct {
	mu   sync.Mutex
	list []string
}

func (l *lines) read(r io.Reader) {
	for scanner := bufio.NewScanner(r); scanner.Scan(); {
		l.mu.Lock()
		l.list = append(l.list, scanner.Text())
		l.mu.Unlock()
	}
}

func (l *lines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.list)
}

// await waits until a line contains the text.
func (l *lines) await(t *testing.T, text string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if slices.ContainsFunc(l.all(), func(line string) bool { return strings.Contains(line, text) }) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("nobody says %q, only %q", text, l.all())
		}
	}
}

// A real limit to the size of files fills the disk for the recorder: it says so once,
// keeps what finds room in memory, counts the rest, and goes on by itself once the
// limit is gone.
func TestRecorderGoesOnOnceThereIsRoom(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	exe := filepath.Join(t.TempDir(), "annals") // by which TestMain knows what to be
	self, err := os.Executable()
	must(t, err)
	must(t, os.Symlink(self, exe))
	record := exec.Command("sh", "-c", `ulimit -S -f 64; exec "$0" record "$1" --stdin s --queue 64KiB`, exe, dir)
	stdin, err := record.StdinPipe()
	must(t, err)
	stderr, err := record.StderrPipe()
	must(t, err)
	must(t, record.Start())
	defer record.Process.Kill()
	var said lines
	var saying sync.WaitGroup
	saying.Go(func() { said.read(stderr) })

	n := 0
	feed := func(count int) {
		for range count {
			n++
			_, err := fmt.Fprintf(stdin, `{"n":%d}`+"\n", n)
			must(t, err)
		}
	}
	for end := time.Now().Add(30 * time.Second); len(said.all()) == 0 && time.Now().Before(end); {
		feed(100)
		time.Sleep(time.Millisecond)
	}
	said.await(t, "annals: the disk is full, nothing is recorded until there is room: ")
	feed(2000) // of which the queue takes a part
	time.Sleep(2 * time.Second)
	unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	must(t, unix.Prlimit(record.Process.Pid, unix.RLIMIT_FSIZE, &unlimited, nil))
	said.await(t, "annals: there is room again; ")
	feed(500)
	must(t, stdin.Close())
	saying.Wait()
	must(t, record.Wait())
	if list := said.all(); len(list) != 2 {
		t.Errorf("it said %q", list)
	}
	store, err := annals.Open(dir, nil)
	must(t, err)
	defer store.Close()
	checkGaps(t, store, 1, n, true)
	values := samplesOf(t, store, "s")
	if last := values[len(values)-1]; last != fmt.Sprintf(`{"n":%d}`, n) {
		t.Errorf("the last sample is %s, %d were fed", last, n)
	}
}

// onFullDisk mounts a small disk, takes most of its room, records until the disk is
// full, makes room, records more, and copies the store away. It must run where it may
// mount.
const onFullDisk = `
set -e
annals=$1 disk=$2 said=$3 copy=$4
mount -t tmpfs -o size=2m annals "$disk"
echo mounted
head -c 1800k /dev/zero > "$disk/ballast"
: > "$said"
(
	seq -f '{"n":%.0f}' 1 20000
	until grep -q 'the disk is full' "$said"; do sleep 0.05; done
	seq -f '{"n":%.0f}' 20001 25000
	rm "$disk/ballast"
	until grep -q 'there is room again' "$said"; do sleep 0.05; done
	seq -f '{"n":%.0f}' 25001 25100
) | "$annals" record "$disk/d" --stdin s --queue 64KiB --segment-size 64KiB 2> "$said"
"$annals" verify "$disk/d" > /dev/null
cp -r "$disk/d" "$copy"
`

// The same on a disk that is really full.
func TestRecorderOnAFullDiskGoesOnOnceThereIsRoom(t *testing.T) {
	dir := t.TempDir()
	script, disk, said, copied, exe := filepath.Join(dir, "script"), filepath.Join(dir, "disk"), filepath.Join(dir, "said"), filepath.Join(dir, "copy"), filepath.Join(dir, "annals")
	must(t, os.WriteFile(script, []byte(onFullDisk), 0o600))
	must(t, os.Mkdir(disk, 0o700))
	self, err := os.Executable()
	must(t, err)
	must(t, os.Symlink(self, exe))
	args := []string{"--mount", "sh", script, exe, disk, said, copied}
	if os.Getuid() != 0 {
		args = append([]string{"--user", "--map-root-user"}, args...)
	}
	run := exec.Command(tool(t, "unshare"), args...)
	out := runFor(t, run, time.Minute)
	if !strings.HasPrefix(out, "mounted\n") {
		t.Skipf("NOT CHECKED, a limit to the size of files is tried instead: a tmpfs may not be mounted: %s", out)
	}
	text, err := os.ReadFile(said)
	must(t, err)
	if list := strings.Split(strings.TrimSpace(string(text)), "\n"); !run.ProcessState.Success() || len(list) != 2 || !strings.Contains(list[0], "no space left on device") {
		t.Errorf("%v: %s; it said %q", run.ProcessState, out, list)
	}
	store, err := annals.Open(copied, nil)
	must(t, err)
	defer store.Close()
	checkGaps(t, store, 1, 25100, true)
}

// runFor runs a command that is killed after some time, and returns what it prints.
func runFor(t *testing.T, cmd *exec.Cmd, limit time.Duration) string {
	t.Helper()
	timer := time.AfterFunc(limit, func() { cmd.Process.Kill() })
	defer timer.Stop()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Logf("%v", err)
	}
	return string(out)
}

// A recorder that is stopped, or killed, and started again goes on with the next
// number. SIGTERM, SIGINT and SIGHUP, of a terminal that is closed, are a clean stop.
func TestARestartLeavesNoGap(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	// Under nohup these tests ignore SIGHUP, and so would the recorder, rightly. A
	// signal that is caught here is not ignored by programs started here.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP)
	defer signal.Stop(caught)
	for _, end := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGKILL, syscall.SIGTERM} {
		before := lastSeq(t, dir)
		record := annalsCommand(t, "record", dir, "--every", "5ms", "--exec", "exec=echo 1; sleep 0.01", "--source", "all")
		var complaint strings.Builder
		record.Stderr = &complaint
		must(t, record.Start())
		late := time.AfterFunc(time.Minute, func() { record.Process.Kill() })
		for started := time.Now(); lastSeq(t, dir) < before+50; time.Sleep(5 * time.Millisecond) {
			if time.Since(started) > 30*time.Second {
				record.Process.Kill()
				t.Fatalf("it does not record: %s", &complaint)
			}
		}
		must(t, record.Process.Signal(end))
		err := record.Wait()
		if !late.Stop() {
			t.Fatalf("%v does not end it: %s", end, &complaint)
		}
		if end != syscall.SIGKILL && (err != nil || complaint.Len() > 0 && !strings.HasPrefix(complaint.String(), "annals: no exec")) {
			t.Errorf("%v: %v, %s", end, err, &complaint)
		}
	}
	store, err := annals.Open(dir, nil)
	must(t, err)
	defer store.Close()
	if recovery := store.Recovery(); !recovery.Clean {
		t.Errorf("after SIGTERM: %v", recovery)
	}
	next := uint64(1)
	for record, err := range store.Watch(t.Context(), 1) {
		must(t, err)
		if record.Seq != next {
			t.Fatalf("record %d comes where %d should", record.Seq, next)
		}
		if next++; next > store.Stats().LastSeq {
			break
		}
	}
}

// lastSeq is the newest number that can be read beside a writer.
func lastSeq(t *testing.T, dir string) uint64 {
	t.Helper()
	reader, err := annals.OpenReader(dir, nil)
	if err != nil {
		return 0 // not there yet
	}
	defer reader.Close()
	return reader.Stats().LastSeq
}

// The service manager hears when the recorder is up, and when it ends.
func TestRecorderNotifiesTheServiceManager(t *testing.T) {
	dir := t.TempDir()
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "n"), Net: "unixgram"})
	must(t, err)
	defer socket.Close()
	heard := func() string {
		must(t, socket.SetReadDeadline(time.Now().Add(30*time.Second)))
		buf := make([]byte, 100)
		n, err := socket.Read(buf)
		must(t, err)
		return string(buf[:n])
	}
	record := annalsCommand(t, "record", filepath.Join(dir, "d"), "--every", "10ms")
	record.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(dir, "n"))
	must(t, record.Start())
	defer record.Process.Kill()
	if got := heard(); got != "READY=1" {
		t.Errorf("first it says %q", got)
	}
	must(t, record.Process.Signal(syscall.SIGTERM))
	if got := heard(); got != "STOPPING=1" {
		t.Errorf("at the end it says %q", got)
	}
	must(t, record.Wait())
}
