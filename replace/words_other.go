//go:build !(linux || darwin || freebsd)

package replace

type mapped struct{}

// Store has no memory to store to: files are no Mapper here.
func (w *Words) Store(int, uint64) error { return ErrUnmapped }

// Load has no memory to load from.
func (w *Words) Load(int) (uint64, error) { return 0, ErrUnmapped }

// Close does nothing.
func (w *Words) Close() error { return nil }
