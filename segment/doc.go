// Package segment defines the bytes of annals on disk: JSON objects, one a line,
// each followed by its checksum, in numbered files.
//
// It knows bytes, lines and what makes them valid; it opens no files. The same
// functions serve the writer, recovery, compaction and verification, so that
// there is one spelling and one reading of everything.
//
// # A line
//
//	{"seq":8193,"key":"user:1","val":{"name":"Ann"}} 5d0c3f9a\n
//	└──────────────── object ──────────────────────┘ └─ crc ┘
//
// The object is a JSON object; the crc is the CRC32 (IEEE, as zlib and gzip have
// it) of the object's bytes, as 8 lower-case hex digits. There are five kinds:
//
//	{"annals":1,"store":S,"segment":2,"first":8193}                     header
//	{"annals":1,"store":S,"segment":5,"first":8193,"from":[4]}          header of a recovered copy
//	{"annals":1,"store":S,"segment":9,"from":[1,2],"compacted":true,"order":"key"}
//	{"seq":N[,"dur":N][,"more":true],NAME,VALUE}                        record
//	{"dur":N,"now":T}                                                   mark
//	{"sealed":2,"first":N,"last":N,"records":N,"bytes":N,"crc":"X"}     footer
//
// where NAME and VALUE are
//
//	"key":STRING | "k64":BASE64   ["exp":T,] "val":JSON | "txt":STRING | "b64":BASE64
//	                              "del":true
//	"ser":STRING                  "at":T,    "val":JSON | "txt":STRING | "b64":BASE64
//
// T is Unix time in seconds with six decimals. A STRING escapes the quote, the
// backslash and bytes below 0x20, and nothing else. FORMAT.md has the same as one
// regular expression.
//
// # A segment
//
//	offset 0   header line
//	           record lines and marks          open: grows at the end,
//	           …                               may end in newlines only (padding)
//	           footer line                     sealed: never changes again
//
// # When a line is valid
//
// A run of bytes that ends at a newline is a valid line iff
//
//  1. it is "OBJECT CRC" with exactly one space before exactly 8 digits 0-9a-f;
//  2. OBJECT holds no byte below 0x20, begins with { and ends with };
//  3. CRC is the CRC32 of OBJECT;
//  4. OBJECT is one of the five kinds above, its fields in that order, its
//     numbers without leading zeros, seq from 1 to 2^53-1, times below 2^53 µs.
//
// A value under "val" is not parsed in reading: that it is JSON is the writer's
// duty, that it is unchanged the checksum's.
//
// # When a sealed segment is valid
//
// It is as long as its footer in MANIFEST says; it begins with a header of this
// store and this number and ends with that footer; every line between is a valid
// record or mark; their count, least and greatest seq and the CRC32 of all bytes
// before the footer are the footer's. In a segment as first written, and in a
// recovered copy, seq begins at the header's first and rises by one, and a commit
// (lines with "more" and the one behind them) is whole and has no mark inside.
//
// # What an open segment tells after a crash
//
// Pages reach the disk in any order, so a bad line with good lines behind it
// proves nothing by itself. [Examine] finds the good part, which ends behind the
// last whole commit before the first bad line, and then looks for evidence that
// more than that had been durable: a line whose "dur" is above the good part's
// last seq, or a footer whose last is. With evidence it is corruption; without,
// the rest is a tail that nobody was promised.
package segment
