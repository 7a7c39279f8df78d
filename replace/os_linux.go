package replace

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func (f osFile) SyncData() error { return f.control("fdatasync", unix.Fdatasync) }

// StartWriteback implements [Hastener]. Where there is no such call the kernel
// begins when it likes.
func (f osFile) StartWriteback(off, n int64) error {
	err := f.control("sync_file_range", func(fd int) error {
		return unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE)
	})
	if errors.Is(err, unix.EIO) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return err
	}
	return nil
}

// NetworkFS returns the kind of network or user-space file system that dir is
// on, "nfs" for one, or "" if it is a local one. On the former, locks and syncs
// may be local to this machine, or do nothing at all.
func NetworkFS(dir string) (kind string, err error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Statfs(dir, &st) }); err != nil {
		return "", &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	// The field is signed and of another size on each architecture; the magic
	// numbers are 32 bits.
	return networkKind(uint32(st.Type)), nil
}

// networkKind names the network file system with the given magic number. FUSE is
// one: what a sync is worth there depends on a program we know nothing of.
func networkKind(magic uint32) string {
	switch magic {
	case unix.NFS_SUPER_MAGIC:
		return "nfs"
	case unix.SMB_SUPER_MAGIC:
		return "smb"
	case unix.CIFS_SUPER_MAGIC:
		return "cifs"
	case unix.SMB2_SUPER_MAGIC:
		return "smb2"
	case unix.FUSE_SUPER_MAGIC:
		return "fuse"
	case unix.V9FS_MAGIC:
		return "9p"
	case unix.CEPH_SUPER_MAGIC:
		return "ceph"
	case unix.AFS_SUPER_MAGIC, unix.AFS_FS_MAGIC:
		return "afs"
	case unix.CODA_SUPER_MAGIC:
		return "coda"
	case 0x564c:
		return "ncp"
	case 0x0bd00bd0:
		return "lustre"
	case 0x47504653:
		return "gpfs"
	case 0x786f4256:
		return "vboxsf"
	}
	return ""
}
