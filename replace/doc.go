// Package replace changes files and directories so that a crash, a full disk or
// another program at the same moment leaves the old state or the new one, and never
// a third.
//
// # The problem
//
// This is how files are usually updated:
//
//	data, err := os.ReadFile(path)
//	// make new contents of data
//	err = os.WriteFile(path, data, 0o600)
//
// It works until the disk fills up right after the truncation (the file is
// empty), until two processes do it at once (one update is lost), or until the
// power fails a second later (the old contents are back, though others have already
// acted on the new). The article "Reliable file updates with Python" sorts such
// failures by what a database calls ACID:
//
//   - Atomic: the update happens as a whole or not at all.
//   - Consistent: it leads from one valid state to another.
//   - Isolated: updates at the same time do as if they came one after another.
//   - Durable: once it is reported done, a power cut does not undo it.
//
// and shows patterns that give some of these each. This package is those
// patterns, with the steps that the article leaves to its reader.
//
// # The patterns
//
// Which pattern gives what, and by which step:
//
//	pattern                         Atomic         Consistent         Isolated         Durable
//	------------------------------  -------------  -----------------  ---------------  ---------------------
//	write-replace                   rename         sync before the    no               sync of the file, then
//	  WriteFile, Begin                             rename                              of the directory
//	locked write-replace            rename         the caller's fn    lock on the      the same, before the
//	  Update                                                          file, checked    lock is let go
//	append                          checksum of    a torn line stays  lock on the      sync of the file; first
//	  Append, ReadLines             each line      by itself          file, checked    of all the directory
//	generations                     rename of a    a reader holds     lock on .lock,   sync of all files and
//	  OpenGenerations               link           the whole set      for writers      directories, then flip
//	spool                           rename         items stand alone  unique names;    sync of the file, then
//	  OpenSpool                                                       lock to claim    of the directory
//	truncate-write                  impossible     no                 by a lock        by a sync
//	  (not here)
//
// Truncate-write, the snippet above, is the pattern that cannot be made atomic:
// between the truncation and the write there is neither the old nor the new. Use
// write-replace instead.
//
// To write a file that only one program writes, say [WriteFile]. Contents that are
// made bit by bit go to a [Pending]. If several programs change it, or
// several goroutines, say what to change by [Update]; nothing but the path needs to
// be agreed on. For measurements, journals and everything else that only grows
// there is [Append], and [ReadLines] to read it. Several files that must match
// each other are [Generations]. Work that one program leaves for another to do is
// a [Spool]. And where the files have a form of their own, [Lock] on a lock file
// beside them isolates whatever is done to them.
//
// # Files as memory
//
// What was replaced as a whole and does not change any more can be read as memory:
// [Map] gives a [Mapping], and a page of it that the system can't bring in, since
// the file was cut or the disk is bad, is [ErrFault] and not the signal that ends a
// process. A few numbers that processes show each other while they run are [Words].
// Both are had where the system keeps mapped memory and files alike; elsewhere one
// reads and writes.
//
// # Beside a writer
//
// A reader that must not lock, so as to keep nobody away, can see whether somebody
// holds a file ([Announcer]) and wait until something happens in a directory
// ([NoticesIn]).
//
// # What to expect
//
// Every function returns nil only once all it promises is durable. A
// [*SyncError] means that a sync failed, and says whether the change can be seen
// nevertheless; after any other error it was not made.
//
// Locks are advisory: they hold among programs that take them, which is what
// flock(1), the article's Python and this package do alike.
//
// All this is true of local file systems: ext4, XFS and Btrfs on Linux, APFS on
// macOS, and with the reservations of [OS] on Windows. [NetworkFS] tells the others.
// It also assumes that a disk that reports a flush has done it.
//
// All of it runs on the small interface [FS], and the option [On] takes another
// one than [OS]: that is how the tests fail every single step.
package replace
