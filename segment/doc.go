// Package segment defines the bytes of annals on disk: JSON objects, one a line,
// each followed by its checksum, in numbered files.
//
// It knows bytes, lines and what makes them valid; it opens no files. The same
// functions serve the writer, recovery, compaction and verification, so that
// there is one spelling and one reading of everything.
//
// # A line
//
//	{"seq":1,"key":"user:1","val":{"name":"Ann","age":41}} c44933b2
//	└───────────────────── object ───────────────────────┘ └─ crc ┘ \n
//
// The object is a JSON object; the crc is the CRC32 (IEEE, as zlib and gzip have
// it) of the object's bytes, as 8 lower-case hex digits. There are five kinds. A
// segment begins with a header, which tells whether it is as first written, a
// copy that recovery made, or an output of compaction:
//
//	{"annals":1,"store":"5f0c0d9e1b2a38475665748392a1b0cf","segment":2,"first":1} 81eb0c71
//	{"annals":1,"store":"5f0c0d9e1b2a38475665748392a1b0cf","segment":4,"first":13,"from":[3]} 1fe2ed23
//	{"annals":1,"store":"5f0c0d9e1b2a38475665748392a1b0cf","segment":6,"from":[1,5],"compacted":true,"order":"key"} e80c92c4
//
// Records follow. A value is JSON as it came, else text, else base64; "dur" says
// what had been durable before, and "more" that the commit goes on:
//
//	{"seq":1,"key":"user:1","val":{"name":"Ann","age":41}} c44933b2
//	{"seq":2,"dur":1,"key":"motd","txt":"two\nlines"} 6d5e5696
//	{"seq":3,"dur":2,"key":"blob","b64":"AAEC/w=="} e464075b
//	{"seq":4,"dur":3,"key":"user:1","del":true} 0adb9de3
//	{"seq":5,"key":"session:9","exp":1732290000.000000,"val":1} 2b22cb85
//	{"seq":6,"dur":5,"ser":"hall-003","at":1732284000.123456,"val":{"t":21.5}} 40352239
//	{"seq":7,"dur":6,"more":true,"key":"a","val":1} 950596d4
//	{"seq":8,"key":"b","val":2} 44f08305
//	{"seq":9,"k64":"/yJc","txt":"a key that is not UTF-8"} a862371c
//
// Between them marks tell what is durable and the store's time, and a footer ends
// a sealed segment:
//
//	{"dur":4,"now":1732284001.000000} 169786ca
//	{"sealed":2,"first":1,"last":12,"records":12,"bytes":960,"crc":"579c9a59"} ed476a0b
//
// The fifth kind is the head of MANIFEST; footers follow it there:
//
//	{"annals":1,"store":"5f0c0d9e1b2a38475665748392a1b0cf","generation":12,"segments":4,"open":8,"next":9,"seq":23,"history":23,"clock":1732284003.500000} 26334875
//
// Times are Unix time in seconds with six decimals. A string escapes the quote,
// the backslash and bytes below 0x20, and nothing else. FORMAT.md has all this as
// regular expressions.
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
//     numbers without leading zeros, seq from 1 to 2^53-1, times below 2^53 µs,
//     names in UTF-8.
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
// (lines with "more" and the one behind them) is whole and has no mark inside. A
// compacted one holds no marks, and either puts and deletes, by key and then seq,
// or samples, by seq.
//
// # What an open segment tells after a crash
//
// Pages reach the disk in any order, so a bad line with good lines behind it
// proves nothing by itself. Here a record whose seq is not the next one is a bad
// line too, and so is a mark of records that did not come, and a newline alone with
// more than newlines behind it. [Examine] finds the good part, which ends behind the
// last whole commit before the first bad line, and then looks for evidence that
// more than that had been durable: a line whose "dur" is above the good part's
// last seq, or a footer whose last is. With evidence it is corruption; without,
// the rest is a tail that nobody was promised.
package segment
