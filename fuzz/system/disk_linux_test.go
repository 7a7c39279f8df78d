package system

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	store "github.com/annalsdb/annals"
)

// namespaceEnv is set where this test binary runs in a user namespace of its own.
const namespaceEnv = "ANNALS_SYSTEM_NAMESPACE"

// disks are the small file systems on which the tests of a full disk run.
var disks = []struct {
	name  string
	mount func(t *testing.T, dir string)
}{
	{"ext4", mountExt4},
	{"tmpfs", mountTmpfs},
}

// mountExt4 mounts an ext4 of 16 MiB in a file.
func mountExt4(t *testing.T, dir string) {
	needs(t, "mkfs.ext4")
	needs(t, "mount")
	_, err := os.Stat("/dev/loop-control")
	if err != nil || os.Getuid() != 0 || os.Getenv(namespaceEnv) != "" {
		unchecked(t, false, "no loop device: a full ext4 (tmpfs is tried instead)")
	}
	image := filepath.Join(t.TempDir(), "image")
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 16<<20))
	command(t, "mkfs.ext4", "-q", "-F", "-m", "0", image)
	out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput()
	if err != nil {
		unchecked(t, true, "mount -o loop: %v: %s", err, out)
	}
	unmountLater(t, dir)
}

// mountTmpfs mounts a tmpfs of 6 MiB.
func mountTmpfs(t *testing.T, dir string) {
	needs(t, "mount")
	out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=6m", "annals", dir).CombinedOutput()
	if err == nil {
		unmountLater(t, dir)
		return
	}
	if os.Getenv(namespaceEnv) != "" {
		unchecked(t, true, "mount -t tmpfs in a user namespace: %v: %s", err, out)
	}
	inNamespace(t)
}

// inNamespace runs this very test again in a user and mount namespace, where
// anybody may mount a tmpfs, and ends it with that outcome.
func inNamespace(t *testing.T) {
	cmd := exec.Command("unshare", "--user", "--map-root-user", "--mount", os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), namespaceEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil && !strings.Contains(string(out), "=== RUN") {
		unchecked(t, false, "neither mount nor user namespaces are allowed: %s", out)
	}
	require.NoError(t, err, "%s", out)
	t.Skipf("done in a user namespace")
}

func unmountLater(t *testing.T, dir string) {
	t.Cleanup(func() { command(t, "umount", dir) })
}

func command(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	require.NoError(t, err, "%q: %s", args, out)
	return string(out)
}

// onEachDisk runs a test on a small disk of each kind.
func onEachDisk(t *testing.T, test func(t *testing.T, disk string, h *history)) {
	for _, d := range disks {
		t.Run(d.name, func(t *testing.T) {
			h := newHistory(seeded(t))
			dir := filepath.Join(t.TempDir(), "disk")
			require.NoError(t, os.Mkdir(dir, 0o700))
			d.mount(t, dir)
			test(t, dir, h)
		})
	}
}

// ballast takes a third of a disk until it is removed.
func ballast(t testing.TB, disk string) (remove func()) {
	t.Helper()
	var st syscall.Statfs_t
	require.NoError(t, syscall.Statfs(disk, &st))
	path := filepath.Join(disk, "ballast")
	require.NoError(t, os.WriteFile(path, make([]byte, int64(st.Bavail)*st.Bsize/3), 0o600))
	return func() { require.NoError(t, os.Remove(path)) }
}

const noRoom = "no space left on device"

// A load that fills the disk says so and loses nothing. On the full disk
// everything can be read and verified, what needs room says that there is none,
// and compaction either finds enough or changes nothing. With some room again
// writes go on.
func TestFullDiskLosesNothing(t *testing.T) {
	onEachDisk(t, func(t *testing.T, disk string, h *history) {
		policies := []string{"always", "20ms", "never"}
		if underRace { // which makes filling a disk take a minute
			i := h.rnd.IntN(len(policies))
			policies = policies[i : i+1]
		}
		for _, policy := range policies {
			h := newHistory(h.rnd)
			h.fat = true
			fillAndGoOn(t, disk, policy, h)
			require.NoError(t, os.RemoveAll(filepath.Join(disk, "store")))
		}
	})
}

func fillAndGoOn(t *testing.T, disk, policy string, h *history) {
	dir, room := filepath.Join(disk, "store"), ballast(t, disk)
	o, acked := load{dir: dir, args: []string{"--segment-size", "256KiB", "--sync", policy}}.run(t, h)
	o.failed(t, noRoom)
	t.Logf("sync %s: %d ops acknowledged", policy, acked)
	require.Positive(t, acked, "the disk was full already")
	rest := fillUp(t, disk)
	h.check(t, dir) // verify and export, on the full disk

	o = annals(t, "put", dir, "key-0", strings.Repeat("x", 32<<10))
	o.failed(t, noRoom)
	compactIfThereIsRoom(t, dir)
	h.complete(t, dir)

	room()
	h.goesOn(t, dir)
	compactIfThereIsRoom(t, dir)
	h.complete(t, dir)
	require.NoError(t, os.Remove(rest))
	h.goesOn(t, dir)
}

// compactIfThereIsRoom compacts a store; it may find that there is no room for what
// is alive.
func compactIfThereIsRoom(t testing.TB, dir string) {
	t.Helper()
	if o := annals(t, "compact", dir); o.code != 0 {
		o.failed(t, noRoom)
	}
}

// fillUp takes what room is left, in a file.
func fillUp(t testing.TB, disk string) (path string) {
	t.Helper()
	path = filepath.Join(disk, "rest")
	file, err := os.Create(path)
	require.NoError(t, err)
	for size := 1 << 20; size > 0; {
		if _, err := file.Write(make([]byte, size)); err != nil {
			require.ErrorIs(t, err, syscall.ENOSPC)
			size /= 2
		}
	}
	require.NoError(t, file.Close())
	return path
}

// In a program that keeps the store open a put on the full disk fails, reads go
// on, and as soon as there is room so do writes, by themselves.
func TestStoreGoesOnOnceThereIsRoom(t *testing.T) {
	onEachDisk(t, func(t *testing.T, disk string, h *history) {
		room := ballast(t, disk)
		dir := filepath.Join(disk, "store")
		db, err := store.Open(dir, &store.Options{SegmentSize: 64 << 10, Compaction: store.Compaction{Off: true}})
		require.NoError(t, err)
		defer db.Close()
		put := func(size int) error {
			key := fmt.Sprintf("key-%d", h.rnd.IntN(60))
			value := fmt.Sprintf(`{"n":%d,"x":%q}`, len(h.commits), strings.Repeat("x", size))
			err := db.Put(key, []byte(value))
			if err == nil {
				h.record(op{name: key, line: fmt.Sprintf(`{"key":%q,"val":%s}`, key, value)})
			}
			return err
		}
		for size := 60 << 10; size > 100; { // down to one that finds no room for a line
			if err := put(size); err != nil {
				require.ErrorIs(t, err, syscall.ENOSPC)
				require.NotErrorIs(t, err, store.ErrFailed)
				size /= 2
			}
		}
		require.Error(t, put(60<<10), "the disk is full")
		holds(t, db, h)
		room()
		for range 8 {
			require.NoError(t, put(60<<10), "there is room again")
		}
		holds(t, db, h)
		require.NoError(t, db.Close())
		h.complete(t, dir)
	})
}

// holds makes sure that an open store has all keys of the history and no other.
func holds(t testing.TB, db *store.Store, h *history) {
	t.Helper()
	n := 0
	for e, err := range db.Scan(store.Range{}) {
		require.NoError(t, err)
		require.Equal(t, h.state.keys[e.Key], string(e.AppendJSON(nil)))
		n++
	}
	require.Len(t, h.state.keys, n)
}
