//go:build dragonfly || freebsd || netbsd || openbsd

package replace

// SyncData is Sync: it promises at least as much as fdatasync.
func (f osFile) SyncData() error { return f.Sync() }

// NetworkFS returns "": it cannot tell a network file system here.
func NetworkFS(dir string) (kind string, err error) { return "", nil }
