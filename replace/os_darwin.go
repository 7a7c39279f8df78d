package replace

import (
	"os"

	"golang.org/x/sys/unix"
)

// SyncData is Sync: only F_FULLFSYNC reaches the medium here.
func (f osFile) SyncData() error { return f.Sync() }

// NetworkFS returns the kind of network or user-space file system that dir is
// on, "nfs" for one, or "" if it is a local one. On the former, locks and syncs
// may be local to this machine, or do nothing at all.
func NetworkFS(dir string) (kind string, err error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Statfs(dir, &st) }); err != nil {
		return "", &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return networkKind(unix.ByteSliceToString(st.Fstypename[:]), st.Flags&unix.MNT_LOCAL != 0), nil
}

// networkKind returns name unless it is the name of a local file system. The
// FUSE ones may call themselves local.
func networkKind(name string, local bool) string {
	switch name {
	case "osxfuse", "macfuse", "fuse-t":
		return name
	}
	if local {
		return ""
	}
	return name
}
