package replace

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNetworkKind(t *testing.T) {
	for magic, want := range map[uint32]string{
		0x6969:     "nfs",
		0x517b:     "smb",
		0xff534d42: "cifs",
		0xfe534d42: "smb2",
		0x65735546: "fuse",
		0x01021997: "9p",
		0x00c36400: "ceph",
		0x5346414f: "afs",
		0x6b414653: "afs",
		0x73757245: "coda",
		0x564c:     "ncp",
		0x0bd00bd0: "lustre",
		0x47504653: "gpfs",
		0x786f4256: "vboxsf",
		0xef53:     "", // ext4
		0x58465342: "", // XFS
		0x9123683e: "", // Btrfs
		0x01021994: "", // tmpfs
		0x794c7630: "", // overlay
		0x2fc12fc1: "", // ZFS
		0:          "",
	} {
		assert.Equal(t, want, networkKind(magic), "%x", magic)
	}
}

// The disk may be asked to begin early; nothing depends on it.
func TestStartWriteback(t *testing.T) {
	file, err := OS.OpenFile(filepath.Join(t.TempDir(), "f"), os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(t, err)
	_, err = file.WriteAt(make([]byte, 1<<20), 0)
	require.NoError(t, err)
	h := file.(Hastener)
	require.NoError(t, h.StartWriteback(0, 1<<20))
	require.NoError(t, h.StartWriteback(1<<30, 1<<20), "beyond the end there is nothing to do")
	require.NoError(t, file.SyncData())
	require.NoError(t, file.Close())
	require.NoError(t, h.StartWriteback(0, 1), "that it was not asked is no loss")
}
