// Package annals is an embedded, append-only, checksummed log store.
//
// One directory is one store. Every change is a line of JSON followed by its
// CRC32, so cat, grep and an editor can read it; nothing acknowledged is ever
// lost. A store is two things at once: a map from keys to values, and any number
// of series of samples.
//
//	db, err := annals.Open("data", nil)
//	...
//	err = db.Put("user:1", []byte(`{"name":"Ann"}`)) // durable once it returns
//	value, err := db.Get("user:1")
//	seq, err := db.Append("hall-003", []byte(`{"t":21.5}`))
//
// # Words
//
// A record is one change, a line its bytes, a commit the records that become true
// together, a batch what one write and one sync carry. A segment is a file of
// lines: the open one is being written, a sealed one never changes again. A series
// is a named run of samples. Records are numbered; the number is the seq. The index
// tells where the newest record of each key lies; INDEX is the file that it is saved
// in, a checkpoint of it.
//
// A Journal keeps the results of one run of a benchmark harness among the keys, one
// result of each, so that a harness that was killed does only what is missing.
//
// # What is promised
//
// When a write returns nil under SyncAlways it survives process death, kernel
// crash and power loss. A Batch or Update is there whole or not at all. After a
// crash the store holds a prefix of what was submitted that contains everything
// acknowledged. What a reader was shown does not disappear. Damaged bytes are never
// returned as data. DURABILITY.md has the full list, and what proves each.
//
// # Opening, reading, compaction
//
// Open uses INDEX in place and reads only what came after it; the rest of the log is
// checked line by line as it is read, so damage in it is found by the reads that
// need it, and by Verify. A Snapshot costs little and keeps the segments that it
// needs on the disk until it is closed. What was overwritten, deleted or has expired
// is taken away by compaction in the background, faster the more of it there is; only
// if that can't keep up do writers wait for it, and never for long.
//
// # Errors
//
// Errors wrap the sentinels of this package where a caller may want to decide on
// them. After a failed sync the store takes no more writes (ErrFailed) and reads
// go on; a full disk fails the write that met it, and later writes go on once there
// is room. Nothing in this package panics for a user's mistake, logs on its own or
// ends the process.
package annals
