// Package compact chooses segments whose records are mostly dead and rewrites
// what is alive in them to new segments.
//
// [Pick] decides, from numbers alone. [Run] acts: it is told by a function what
// is alive and never sees the index. [Writer] makes a sealed segment; recovery,
// backup and repair use it too.
//
// # The order of steps, and what a crash leaves
//
//  1. each input is read from end to end and checked; one bad line stops the job
//  2. outputs: written, synced, closed
//  3. outputs read again: every record that should be there, and no other
//  4. the directory is synced
//     a crash up to here leaves files that nothing lists: the next Open removes them
//  5. (root) the log is synced up to the newest record that made an input record dead
//  6. (root) MANIFEST lists the outputs instead of the inputs, in one step
//     a crash before: the inputs are still listed and whole; after: the outputs are durable
//  7. (root) index entries move, at once or in small slices, while both files stay open
//  8. (root) the inputs go once nobody reads them
//     a crash leaves inputs that nothing lists: the next Open removes them
//
// # Memory, and how often a line is read
//
// Samples lie in the right order and go to an output as they come. Keys are gathered
// until 32 MiB of lines are there, sorted and, if more come, put aside in a file
// (a spill: a segment that is never synced or listed). Where an input is mapped its
// lines stay there once they are checked, and only their names are in memory; what
// becomes of them until they are copied is seen when the output is read again. An input
// that is an output of an earlier job is in order already. Then all of these are merged,
// each through 128 KiB of its lines. So a line of an input is read once or twice, once
// more if it was put aside, and once more in the output. Samples are gathered up to 4 MiB,
// until those of all inputs before are copied. So memory is bounded, whatever the size of
// the job, but for the list of keys that have expired. What the index must know of
// samples, and of keys if it is to take them in at once, it is told while the output is
// read again ([Job].Samples, [Job].Keys).
//
// Of a large job by hand two inputs are read at a time, by two goroutines with such
// memory each, and an output is synced and read again while the next is written. If
// nothing was put aside, the keys are divided in two, and each goroutine merges and
// writes a part, in outputs of one length.
//
// A record is copied byte for byte. Keys go to outputs in the order of keys, so
// that a scan reads forward; samples go to outputs of their own, in the order of
// their sequence numbers.
package compact
