package system

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	store "github.com/annalsdb/annals"
)

// holder is a process that has a store open for writing.
type holder struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
	err   *strings.Builder
	acked int
}

// hold starts a load that holds the store, and waits until it does.
func hold(t testing.TB, dir string, wrap ...string) *holder {
	t.Helper()
	h := &holder{cmd: prepareCommand(t.Context(), append(wrap, plain, "load", dir, "--ack", "--segment-size", small), nil), err: &strings.Builder{}}
	var err error
	h.in, err = h.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := h.cmd.StdoutPipe()
	require.NoError(t, err)
	h.out, h.cmd.Stderr = bufio.NewReader(out), h.err
	require.NoError(t, h.cmd.Start())
	t.Cleanup(func() { // the process may have ended already
		h.cmd.Cancel()
		h.cmd.Wait()
	})
	return h
}

// put writes one more key and waits for the acknowledgement; false if there is
// none.
func (h *holder) put() bool {
	if _, err := fmt.Fprintf(h.in, `{"key":"holder-%d","val":%q}`+"\n", h.acked, strings.Repeat("x", 200)); err != nil {
		return false
	}
	if _, err := h.out.ReadString('\n'); err != nil {
		return false
	}
	h.acked++
	return true
}

// allThere makes sure that the keys of the first n acknowledged puts are there.
func (h *holder) allThere(t testing.TB, dir string, n int) {
	t.Helper()
	there := must(t, "scan", dir, "--keys-only")
	for i := range n {
		require.Contains(t, there, fmt.Sprintf(`{"key":"holder-%d"}`, i))
	}
	require.Contains(t, must(t, "verify", dir), "no damage")
}

// However a second writer comes to the directory, it fails at once and is told
// who holds it, also while the holder does not run. The lock goes with the
// holder, even if that is killed.
func TestSecondWriterIsRefusedByWhateverPath(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "store")
	h := hold(t, dir)
	require.True(t, h.put())
	paths := map[string]string{
		"as it is": dir, "relative": "store", "dots": "./x/../store/.",
		"symbolic link": filepath.Join(top, "link"), "linked parent": filepath.Join(top, "parent", "store"),
	}
	require.NoError(t, os.Mkdir(filepath.Join(top, "x"), 0o700))
	require.NoError(t, os.Symlink("store", filepath.Join(top, "link")))
	require.NoError(t, os.Symlink(".", filepath.Join(top, "parent")))
	if bound := filepath.Join(top, "bound"); bindMount(t, dir, bound) {
		paths["bind mount"] = bound
	}
	verbs := [][]string{
		{"put", "DIR", "k", "v"}, {"delete", "DIR", "k"}, {"load", "DIR"}, {"append", "DIR", "s"}, {"compact", "DIR"},
		{"record", "DIR", "--for", "1s"}, {"import", "DIR", "/dev/null", "--format", "jsonl"},
	}
	refused := func(t *testing.T) {
		for how, path := range paths {
			for _, verb := range verbs {
				args := append([]string{"-C", top, plain}, verb...)
				args[4] = path
				o := runAll(t, append([]string{"env"}, args...), nil)
				o.failed(t, "process "+strconv.Itoa(h.cmd.Process.Pid))
				require.Contains(t, o.stderr, "one process writes a store at a time", "%s %s", how, verb)
			}
		}
	}
	t.Run("running", refused)
	require.NoError(t, h.cmd.Process.Signal(syscall.SIGSTOP))
	t.Run("stopped", refused)
	require.NoError(t, h.cmd.Process.Signal(syscall.SIGCONT))
	require.True(t, h.put(), "the holder goes on")

	other := filepath.Join(top, "other")
	require.NoError(t, os.Mkdir(other, 0o700))
	require.NoError(t, os.Link(filepath.Join(dir, "LOCK"), filepath.Join(other, "LOCK")))
	require.Equal(t, 2, annals(t, "put", other, "k", "v").code, "a hard link to LOCK is no lock of one's own")
	require.NoError(t, os.RemoveAll(other))

	require.NoError(t, h.cmd.Process.Kill())
	h.cmd.Wait()
	must(t, "put", paths["symbolic link"], "k", "v")
	h.allThere(t, dir, h.acked)
}

// bindMount mounts dir at a second place, where that is allowed.
func bindMount(t *testing.T, dir, at string) bool {
	require.NoError(t, os.Mkdir(at, 0o700))
	if out, err := exec.Command("mount", "--bind", dir, at).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "NOT CHECKED: %s: a bind mount: %s\n", t.Name(), out)
		return false
	}
	unmountLater(t, at)
	return true
}

// In one process, too, a store is opened once, whatever it is called.
func TestOneProcessOpensAStoreOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	db, err := store.Open(dir, nil)
	require.NoError(t, err)
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(dir, link))
	for _, path := range []string{dir, link, dir + "/../store/"} {
		_, err := store.Open(path, nil)
		require.ErrorIs(t, err, store.ErrLocked, path)
	}
	// Those that failed must not have given up the lock of the first.
	annals(t, "put", dir, "k", "v").failed(t, strconv.Itoa(os.Getpid()))
	require.NoError(t, db.Close())
	must(t, "put", dir, "k", "v")
}

// If LOCK is replaced under a holder, another writer may be at work: the holder
// stops at its next MANIFEST at the latest, and what it has acknowledged is there.
func TestHolderWhoseLockIsReplacedStops(t *testing.T) {
	for _, how := range []string{"removed", "replaced", "directory replaced"} {
		t.Run(how, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			h := hold(t, dir)
			require.True(t, h.put())
			lock := filepath.Join(dir, "LOCK")
			there := dir
			switch how {
			case "removed":
				require.NoError(t, os.Remove(lock))
			case "replaced":
				require.NoError(t, os.WriteFile(lock+".new", nil, 0o600))
				require.NoError(t, os.Rename(lock+".new", lock))
			default:
				there = dir + ".moved"
				require.NoError(t, os.Rename(dir, there))
				must(t, "put", dir, "other", "store")
			}
			for h.put() {
				require.Less(t, h.acked, 100, "it goes on and on")
			}
			h.in.Close()
			h.cmd.Wait()
			o := ended(t, h.cmd, nil, "", h.err.String())
			o.failed(t, "LOCK")
			h.allThere(t, there, h.acked)
			must(t, "put", there, "k", "v")
			h.allThere(t, there, h.acked)
		})
	}
}

// If LOCK is replaced between the moment a writer opens it and the moment it locks
// it, the lock is on a file without a name and guards nothing: the writer must
// begin again with the new one.
func TestLockReplacedWhileBeingTaken(t *testing.T) {
	needs(t, "strace")
	const delay = 3 * time.Second
	for range 5 {
		dir := filepath.Join(t.TempDir(), "store")
		h := hold(t, dir, "strace", "-f", "-qq", "-o", os.DevNull, "-e", "trace=flock",
			"-e", fmt.Sprintf("inject=flock:delay_enter=%d:when=1", delay.Microseconds()))
		lock := filepath.Join(dir, "LOCK")
		for err := os.ErrNotExist; err != nil; _, err = os.Stat(lock) {
			time.Sleep(time.Millisecond)
		}
		seen := time.Now()
		require.NoError(t, os.WriteFile(lock+".new", nil, 0o600))
		require.NoError(t, os.Rename(lock+".new", lock))
		if time.Since(seen) > delay/2 {
			continue // too late, perhaps
		}
		require.True(t, h.put(), "it takes the lock nevertheless: %s", h.err)
		file, err := os.Open(lock)
		require.NoError(t, err)
		defer file.Close()
		require.ErrorIs(t, unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK, "the lock is on another file")
		annals(t, "put", dir, "k", "v").failed(t, "is held by process")
		return
	}
	require.FailNow(t, "this machine is too slow")
}

// holdStore opens the store args[0], starts a child that lives for a while, says
// which, and waits to be killed.
func holdStore(args []string) error {
	db, err := store.Open(args[0], nil)
	if err != nil {
		return err
	}
	if err := db.Put("k", []byte("1")); err != nil {
		return err
	}
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		return err
	}
	fmt.Println(child.Process.Pid)
	io.Copy(io.Discard, os.Stdin)
	return db.Close()
}

// A child of the holder inherits nothing: once the holder is killed the store can
// be opened, however long the child lives.
func TestChildOfAHolderKeepsNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	cmd := exec.Command(os.Args[0], dir)
	cmd.Env = append(os.Environ(), roleEnv+"=holder")
	cmd.Stderr = os.Stderr
	_, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var child int
	_, err = fmt.Fscan(out, &child)
	require.NoError(t, err)
	defer syscall.Kill(child, syscall.SIGKILL)
	annals(t, "put", dir, "k", "2").failed(t, strconv.Itoa(cmd.Process.Pid))
	require.NoError(t, cmd.Process.Kill())
	cmd.Wait()
	require.NoError(t, syscall.Kill(child, 0), "the child lives on")
	must(t, "put", dir, "k", "2")
	require.Equal(t, "2", strings.TrimSpace(must(t, "get", dir, "k")))
}
