package replace

import "io/fs"

// An Option changes how a pattern works. One that a pattern has no use for does
// nothing.
type Option func(*options)

type options struct {
	fsys FS
	perm fs.FileMode
	keep int

	permAlways bool
}

// On runs a pattern on fsys instead of [OS].
func On(fsys FS) Option {
	return func(o *options) { o.fsys = fsys }
}

// Perm sets the permissions of new files, 0o600 by default, whatever the umask.
// New directories get the same and may be entered by whoever may read them. A
// file that exists keeps the permissions it has.
func Perm(mode fs.FileMode) Option {
	return func(o *options) { o.perm = mode.Perm() }
}

// PermAlways is [Perm] for a file that must not have any other permissions: one
// that replaces a file gets these as well.
func PermAlways(mode fs.FileMode) Option {
	return func(o *options) { o.perm, o.permAlways = mode.Perm(), true }
}

// Keep sets how many generations [Generations] keeps beside the current one, 1 by
// default.
func Keep(n int) Option {
	return func(o *options) { o.keep = n }
}

func newOptions(opts []Option) options {
	o := options{fsys: OS, perm: 0o600, keep: 1}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// dirPerm lets those who may read a file also enter its directory.
func (o options) dirPerm() fs.FileMode { return o.perm | o.perm&0o444>>2 }
