package replace

// Announcer is what a [File] may be besides: one on which its holder shows that it
// is at work, and others see that without locking anything. A shared lock that was
// taken to find out would for a moment keep a writer away. Files of [OS] are on
// Linux (a record lock that belongs to the open file, asked for with F_OFD_GETLK), on
// macOS and the BSDs (there F_GETLK tells of the lock of flock itself), and on Windows (a
// byte of its own, which is locked for as long as it takes to look; whoever announces
// himself waits for that).
type Announcer interface {
	// Announce shows until Close, or the end of the process, that the file, which is
	// locked exclusively, has a holder. ErrLocked: another program holds a record lock
	// on it, which no user of this package takes. errors.ErrUnsupported: others can't
	// be shown anything here.
	Announce() error

	// Announced tells whether another open file, in this process or another, has
	// announced a holder. The file needs to be open for reading only.
	Announced() (bool, error)
}
