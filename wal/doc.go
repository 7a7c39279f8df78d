// Package wal is the write path of annals: it gives records their sequence
// numbers, writes them to the open segment in batches, makes them durable, and
// ends a segment and begins the next.
//
// # Who does what
//
// There is no thread of its own. Whoever finds the log idle becomes its owner:
// a lone writer writes and syncs its own batch and is never handed over to
// anybody. Writers that come while a batch is under way queue; when it is done, a
// goroutine takes ownership and goes on until nothing is left, or until a crowd has
// formed that hands it around. Only the owner
// touches the file, so there is at most one batch that is not known to be
// durable. That matters twice. The kernel reports a lost write to one caller
// only, so it must be the one who acknowledges. And a valid line of a later batch
// proves that the batches before it had been synced, since each batch begins
// with "dur", the number up to which all was durable when it was written.
//
// # The life of a commit under SyncAlways
//
//	Submit   numbers are given, the commit is queued
//	owner    1. waits a moment, while they keep coming, for as many commits as came last time; where
//	            all have come for a while, none waits and the last of them is the owner
//	         2. rotates if the segment is full
//	         3. assembles the lines of all queued commits that fit
//	         4. one pwrite, with newlines up to the next 64 KiB where it grows the file; behind it more, if
//	            the file would grow again soon
//	         5. one fdatasync
//	         6. Host.Visible, then the waiters are told, some commits at a time
//
// Under SyncEvery and SyncNever the lines are assembled and visible at once, at
// the place where they will lie; steps 4 and 5 follow behind. Behind each MiB that
// is written the disk is asked to begin with it (replace.Hastener), so that the sync
// has less to do; that promises nothing, but its error is as bad as that of a sync.
//
// A commit's memory is its maker's again once the commit is done, and the log's
// own buffers are used again: a put costs little besides the bytes that it writes.
// What is queued and not yet visible is therefore looked at only by those who know
// that it is not done, or hold a lock against its end (the root's pending).
//
// # What can go wrong, and why nothing is lost
//
//	the write fails (no room)   the file is cut back to the end of the last batch and synced; then the
//	                            commits fail, their numbers are given back, and the log goes on. Under
//	                            SyncEvery the lines stay in memory and are written again first.
//	cutting back fails          a fragment may be there: the log fails for good (FailedError, unknown).
//	a sync fails                what it covered may or may not be on disk, and the kernel will not say so
//	                            again: the log fails for good. Nothing is retried.
//	somebody else grew or cut   the log fails for good before it writes anything.
//	the file
//
// # Crash while rotating
//
//	after 1 (all synced)        Open finds an open segment without a footer: a crash like any other
//	after 2 (footer, fsync)     MANIFEST still says open: Open finds a footer that fits and copies the segment
//	after 3 (next one durable)  the same; the new file is not listed and holds no record: a leftover
//	after 4 (MANIFEST)          the old one is sealed, the new one is open and has only its header
//	5. only now a record goes to the new segment
package wal
