// Package index knows where in the log the newest record of each key lies, and
// which stretches of the log hold the samples of each series.
//
// It knows nothing of files, lines or time. Its user tells it what was written, by
// [Index.Apply], decides what has expired, and reads the lines that it names.
//
// # Keys
//
// A key has an [Entry]: number and place of its newest line. Two questions are
// asked of entries, and each has a structure of its own. Where is this key? A hash
// answers. Which keys follow? Sorted lists answer, made only once somebody asks.
// Entries lie in levels, and the first that knows a key is right:
//
//	top        an overlay: what has changed since the last Freeze. It takes all changes
//	frozen     overlays that take no more, on their way into the next table
//	table      all else, as it was then: pages, in place, mapped from the file INDEX
//
// An overlay (overlay.go) is a log of changes in chunks of bytes that never change,
// and a hash of slots that each name the latest change of a key. A slot is stored
// atomically when its change is whole; so Get takes no lock. The garbage collector
// sees a few large chunks without pointers instead of a million small things.
//
// Its order (order.go) is kept in runs, sorted lists of changes. What is new is
// sorted when a snapshot is taken, or in the background once much has come, and becomes
// a run; runs of like length are merged once somebody asks, so there are few. A key that is put and
// never scanned costs no order, and sorting many at a time costs less than a place
// in a tree for each.
//
// A table (page.go, skip.go, keys.go, tablewriter.go, table.go) holds entries in key order, inner
// pages to find a key's place in that order, and hash pages to find the key itself:
// two pages for a Get. Each page has its checksum, checked when the page is first
// used, so a table of any size opens at once and needs next to no heap. FORMAT.md
// has its bytes.
//
// A cursor (cursor.go) walks over a run or a table, and [Snapshot.Range] merges
// cursors.
//
// Why so, measured with a million keys of 16 bytes: a hash finds one in 0.23 µs, a
// tree (google/btree) in 1.6 to 2.1. At Open a line is read and checked in 59 ns on two
// cores; putting its key into a map took 241 ns, sorting 958 and building a tree in order
// 610 to 684, and the two kept 95 bytes of heap a key. So the index decided how long an
// Open took and how much memory a store, not the log: a table that is used in place
// needs neither.
//
// # Snapshots
//
// A [Snapshot] is a set of levels, the place in the top overlay up to which it
// sees, and the runs up to there. None of these ever changes, so it costs nothing
// to keep, and needs no closing. Taking one sorts what has come since the one
// before; if nothing has, it is the same one.
//
// # Checkpoints
//
//	Freeze   the top overlay takes no more, an empty one is put above it; the state
//	         beside the entries is written down. Only for this others wait
//	Write    frozen overlays and table are merged into a new table, while all goes on
//	         above
//	(root)   the file is synced, the log too, up to Last; the file is renamed to INDEX
//	Adopt    the new table takes the place of all that went into it
//
// A Write that fails leaves all as it was but for one more frozen overlay, which
// the next Freeze takes in. A crash leaves the old file, or the new one; either is a
// true index of records that are durable, and the log has the rest.
//
// [Restore] gives a [Builder] that begins with a table and takes in the records
// that it does not stand for. A record that it does stand for, met again, can only
// have moved: compaction has copied it. [NewBuilder] begins with nothing, and takes
// in all of the log, segments in any order.
//
// # Samples
//
// Samples are not indexed one by one. The log is divided into blocks of about 64
// KiB; of each the index knows the numbers and times of its samples, in 32 bytes. A part
// of up to 256 blocks of a segment keeps beside them in which blocks each series occurs,
// in at most 64 bytes a block (where.go): exactly for series that are rare, or in every
// block, and for all others only that they may be anywhere in the part. So the memory is
// bounded, whatever the number of series, by one byte for some 680 of the log; a rare
// series is found where it is; and of a series that is named only as one that may be
// anywhere, a sample is never far. A reader of samples opens only the blocks that can hold
// an answer. The part that grows keeps all series of all its blocks.
//
// A part that is packed never changes: readers look into it without a lock, and Freeze
// takes only a pointer to it. Compaction makes the parts of its outputs beside the index,
// sample by sample ([Stretch]), and Replace puts them in.
//
// Sums of each series lie in a tree (google/btree), whose copies are as cheap as a
// snapshot needs. It leads to them, so that a sample need not: it changes the sums in
// their place, or a copy of them if a snapshot has those (series.go).
//
// A compaction that leaves samples behind for good, by retention, says so before
// MANIFEST lets go of its inputs ([Index.Retiring]), and the root saves the index then:
// who restores that finds the inputs there or not, and the sums of series are right
// either way ([Index.Retired] counts out in memory).
//
// # Who may call what
//
// Whatever only reads, Snapshots and Tables too, may be called by anybody at any time.
// Apply is for one caller at a time, in the order of sequence numbers; its changes
// become visible together, to Get by a count that is odd meanwhile. Move, Moves, Drop
// and Replace are for the one compaction that runs. Freeze, Write and Adopt are for the one
// checkpoint that runs; the root keeps Freeze apart from the time in which compaction
// lists its outputs and moves entries to them, since a table must not lead to
// segments that are going. A Builder is for one goroutine.
//
// What a put replaces is counted out later (owed.go), often by a goroutine that looks for it
// without the lock and counts only if nobody has called payLocked meanwhile.
//
// Locks, outermost first: that of an overlay's order, Index.mu.
//
// # Compaction in bulk
//
// A compaction of much of the store would ask and tell the index about every line of
// its inputs, and each answer waits for memory. So [Index.Live] marks the places of all
// entries in one walk over the levels, and [Moves] makes of the new places a level of
// its own, beside the index, to be put above all others. Small jobs use Get and Move.
//
// # Damage
//
// A page whose checksum is wrong, or that can't be brought into memory, is a
// [*TableError] for whoever needs it: never a wrong entry, never a signal. Puts go on.
package index
