package annals_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/annalsdb/annals"
)

// User is what the examples keep.
type User struct {
	Name string `json:"name"`
	Age  int    `json:"age"`
}

// temp opens a store in a temporary directory; done closes and removes it.
func temp() (db *annals.Store, done func()) {
	dir, err := os.MkdirTemp("", "annals")
	if err != nil {
		log.Fatal(err)
	}
	db, err = annals.Open(filepath.Join(dir, "data"), nil)
	if err != nil {
		log.Fatal(err)
	}
	return db, func() {
		db.Close()
		os.RemoveAll(dir)
	}
}

func Example() {
	dir, err := os.MkdirTemp("", "annals")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	os.Chdir(dir)

	db, err := annals.Open("data", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()                                                      // nothing acknowledged depends on it
	if err := annals.PutJSON(db, "user:1", User{"Ann", 41}); err != nil { // durable once it returns
		log.Fatal(err)
	}
	fmt.Println(annals.GetJSON[User](db, "user:1"))
	for e, err := range db.Scan(annals.Prefix("user:")) {
		fmt.Printf("%s %s %v\n", e.Key, e.Value, err)
	}
	// Output:
	// {Ann 41} <nil>
	// user:1 {"name":"Ann","age":41} <nil>
}

func ExampleStore_Put() {
	db, done := temp()
	defer done()

	fmt.Println(db.Put("motd", []byte("two\nlines"))) // any bytes
	v, err := db.Get("motd")
	fmt.Printf("%q %v\n", v, err)

	_, err = db.Get("nothing")
	fmt.Println(errors.Is(err, annals.ErrNotFound))
	// Output:
	// <nil>
	// "two\nlines" <nil>
	// true
}

func ExampleStore_Delete() {
	db, done := temp()
	defer done()

	db.Put("user:1", []byte("1"))
	fmt.Println(db.Delete("user:1"))
	_, err := db.Get("user:1")
	fmt.Println(err)
	// Output:
	// <nil>
	// annals: not found: key "user:1"
}

func ExampleIfSeq() {
	db, done := temp()
	defer done()

	db.Put("counter", []byte("1"))
	e, _ := db.Lookup("counter")
	fmt.Println(db.Put("counter", []byte("2"), annals.IfSeq(e.Seq)))
	fmt.Println(db.Put("counter", []byte("3"), annals.IfSeq(e.Seq)))
	// Output:
	// <nil>
	// annals: conflict: key "counter" has sequence number 2, not 1
}

func ExampleIfAbsent() {
	db, done := temp()
	defer done()

	fmt.Println(db.Put("leader", []byte(`"ann"`), annals.IfAbsent()))
	err := db.Put("leader", []byte(`"bob"`), annals.IfAbsent())
	fmt.Println(errors.Is(err, annals.ErrConflict))
	// Output:
	// <nil>
	// true
}

func ExampleTTL() {
	db, done := temp()
	defer done()

	db.Put("session:9", []byte("1"), annals.TTL(time.Hour))
	e, _ := db.Lookup("session:9")
	fmt.Println(time.Until(e.Expires).Round(time.Minute))
	// Output: 1h0m0s
}

func ExampleStore_Apply() {
	db, done := temp()
	defer done()

	db.Put("from", []byte("100"))
	var b annals.Batch
	b.Put("from", []byte("70"))
	b.Put("to", []byte("30"))
	b.Append("transfers", []byte(`{"amount":30}`))
	fmt.Println(db.Apply(&b)) // all of it or nothing, after any crash
	// Output: 4 <nil>
}

func ExampleStore_Submit() {
	db, done := temp()
	defer done()

	var commits []*annals.Commit
	for i := range 3 {
		var b annals.Batch
		b.Put(fmt.Sprint("key", i), []byte("1"))
		commits = append(commits, db.Submit(&b)) // does not wait: many share a sync
	}
	for _, c := range commits {
		fmt.Println(c.Wait(context.Background()))
	}
	// Output:
	// 1 <nil>
	// 2 <nil>
	// 3 <nil>
}

func ExampleStore_Update() {
	db, done := temp()
	defer done()

	err := db.Update(func(tx *annals.Tx) error { // alone: nobody writes between the two
		n, err := annals.GetJSON[int](tx, "counter")
		if err != nil && !errors.Is(err, annals.ErrNotFound) {
			return err
		}
		return annals.PutJSON(tx, "counter", n+1)
	})
	fmt.Println(err)
	fmt.Println(annals.GetJSON[int](db, "counter"))
	// Output:
	// <nil>
	// 1 <nil>
}

func ExampleStore_Scan() {
	db, done := temp()
	defer done()

	for _, key := range []string{"user:2", "user:1", "user:3", "x"} {
		db.Put(key, []byte("1"))
	}
	for e, err := range db.Scan(annals.Range{Prefix: "user:", Reverse: true, Limit: 2, KeysOnly: true}) {
		fmt.Println(e.Key, err)
	}
	// Output:
	// user:3 <nil>
	// user:2 <nil>
}

func ExampleStore_Append() {
	db, done := temp()
	defer done()

	noon := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	for i := range 3 {
		value := fmt.Sprintf(`{"t":%d}`, 20+i)
		if _, err := db.Append("hall-003", []byte(value), annals.At(noon.Add(time.Duration(i)*time.Minute))); err != nil {
			log.Fatal(err)
		}
	}
	for s, err := range db.Samples("hall-003", annals.Window{Since: noon.Add(time.Minute)}) {
		fmt.Println(s.At.UTC().Format(time.TimeOnly), string(s.Value), err)
	}
	// Output:
	// 12:01:00 {"t":21} <nil>
	// 12:02:00 {"t":22} <nil>
}

func ExampleStore_Samples() {
	db, done := temp()
	defer done()

	for i := range 5 {
		db.Append("load", []byte(fmt.Sprint(i)))
	}
	for s, err := range db.Samples("load", annals.Window{Reverse: true, Limit: 2}) { // the last two
		fmt.Println(s.Seq, string(s.Value), err)
	}
	// Output:
	// 5 4 <nil>
	// 4 3 <nil>
}

func ExampleAggregate() {
	db, done := temp()
	defer done()

	noon := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	for i, t := range []float64{20, 21, 25, 22} {
		value := fmt.Sprintf(`{"t":%g}`, t)
		db.Append("hall-003", []byte(value), annals.At(noon.Add(time.Duration(i)*25*time.Second)))
	}
	db.Append("hall-003", []byte(`{"t":18}`), annals.At(noon.Add(30*time.Second))) // late

	for b, err := range annals.Aggregate(db, "hall-003", annals.Aggregation{Every: time.Minute, Field: "val.t"}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(b.Start.UTC().Format(time.TimeOnly), b.Count, b.Min.Value, b.Max.Value, b.Mean(), b.Last.Value)
	}
	// Output:
	// 12:00:00 4 18 25 21 25
	// 12:01:00 1 22 22 22 22
}

func ExampleBucket_Quantile() {
	db, done := temp()
	defer done()

	for i := range 100 {
		db.Append("latency", fmt.Append(nil, i+1))
	}
	for b, err := range annals.Aggregate(db, "latency", annals.Aggregation{Quantiles: true}) { // one bucket for all
		fmt.Println(b.Count, b.Quantile(0.5), b.Quantile(0.99), err)
	}
	// Output:
	// 100 50 99 <nil>
}

func ExampleStore_Series() {
	db, done := temp()
	defer done()

	db.Append("load", []byte("1"))
	db.Append("memory", []byte("2"))
	db.Append("load", []byte("3"))
	for info, err := range db.Series() {
		fmt.Println(info.Name, info.Samples, err)
	}
	// Output:
	// load 2 <nil>
	// memory 1 <nil>
}

func ExampleStore_Watch() {
	db, done := temp()
	defer done()

	db.Put("a", []byte("1"))
	db.Append("load", []byte("0.5"))
	for r, err := range db.Watch(context.Background(), 1) { // from the first record on, for ever
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(r.Seq, r.Kind, r.Key+r.Series, string(r.Value))
		if r.Seq == 2 {
			break
		}
	}
	// Output:
	// 1 put a 1
	// 2 sample load 0.5
}

func ExampleStore_Snapshot() {
	db, done := temp()
	defer done()

	db.Put("a", []byte("1"))
	s := db.Snapshot()
	defer s.Close()
	db.Put("a", []byte("2"))
	v, err := s.Get("a")
	fmt.Println(string(v), err, s.Seq())
	// Output: 1 <nil> 1
}

func ExampleStore_View() {
	db, done := temp()
	defer done()

	db.Put("a", []byte("1"))
	err := db.View(func(s *annals.Snapshot) error {
		v, err := s.Get("a")
		fmt.Println(string(v))
		return err
	})
	fmt.Println(err)
	// Output:
	// 1
	// <nil>
}

func ExampleStore_Sync() {
	dir, err := os.MkdirTemp("", "annals")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := annals.Open(filepath.Join(dir, "data"), &annals.Options{Sync: annals.SyncEvery(time.Hour)})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	db.Put("a", []byte("1"))
	fmt.Println(db.Durable())
	fmt.Println(db.Sync(context.Background()))
	// Output:
	// 0
	// 1 <nil>
}

func ExampleStore_Compact() {
	db, done := temp()
	defer done()

	for i := range 100 {
		db.Put("a", []byte(fmt.Sprint(i)))
	}
	stats, err := db.Compact(context.Background(), nil)
	fmt.Println(stats.Kept, stats.Dropped, err)
	// Output: 1 99 <nil>
}

// A store saves its index by itself. Before a planned kill, or for a copy of the
// directory that opens at once, it can be told to.
// Of each series the last three samples stay, of "audit" all. A store does this by
// itself when it is worth it; Compact does it at once.
func ExampleRetention() {
	dir, err := os.MkdirTemp("", "annals-example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := annals.Open(filepath.Join(dir, "data"), &annals.Options{Retention: annals.Retention{
		Default: annals.Limits{Count: 3}, // or Age: 30 * 24 * time.Hour, or Bytes: 1 << 20
		Series:  map[string]annals.Limits{"audit": {}},
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	for i := range 10 {
		db.Append("load", []byte(fmt.Sprint(i)))
		db.Append("audit", []byte(fmt.Sprint(i)))
	}
	stats, err := db.Compact(context.Background(), nil)
	fmt.Println("gone:", stats.Retired, err)
	for info := range db.Series() {
		fmt.Println(info.Name, info.Samples)
	}
	// Output:
	// gone: 7 <nil>
	// audit 10
	// load 3
}

func ExampleStore_Checkpoint() {
	dir, err := os.MkdirTemp("", "annals")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := annals.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	db.Put("a", []byte("1"))
	db.Put("b", []byte("2"))
	db.Compact(context.Background(), nil) // ends the open segment, which INDEX can't stand for
	fmt.Println(db.Checkpoint(context.Background()))
	db.Put("c", []byte("3"))
	db.Close()

	db, err = annals.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	report := db.Recovery()
	fmt.Println("up to", report.Indexed, "by INDEX,", report.Replayed, "read")
	// Output:
	// <nil>
	// up to 2 by INDEX, 1 read
}

func ExampleStore_Stats() {
	db, done := temp()
	defer done()

	db.Put("a", []byte("1"))
	st := db.Stats()
	fmt.Println(st.Keys, st.LastSeq, st.Durable, len(st.Segments))
	// Output: 1 1 1 1
}

func ExampleStore_Backup() {
	db, done := temp()
	defer done()
	dir, err := os.MkdirTemp("", "annals-backup")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	db.Put("a", []byte("1"))
	fmt.Println(db.Backup(context.Background(), filepath.Join(dir, "copy")))
	report, err := annals.Verify(context.Background(), filepath.Join(dir, "copy"), nil)
	fmt.Println(report.Records, report.OK(), err)
	// Output:
	// <nil>
	// 1 true <nil>
}

func ExampleOpenReader() {
	dir, err := os.MkdirTemp("", "annals")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	dir = filepath.Join(dir, "data")
	db, err := annals.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	db.Put("a", []byte("1"))
	db.Close()

	r, err := annals.OpenReader(dir, nil) // no lock, no right to write
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	v, err := r.Get("a")
	fmt.Println(string(v), err)
	// Output: 1 <nil>
}

// A reader follows what a writer does, in this process or in another.
func ExampleReader_Watch() {
	dir, err := os.MkdirTemp("", "annals")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	dir = filepath.Join(dir, "data")
	db, err := annals.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	r, err := annals.OpenReader(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	go func() {
		db.Put("a", []byte("1"))
		db.Put("b", []byte("2"))
	}()
	for rec, err := range r.Watch(context.Background(), 1) { // once each, in order, when it is durable
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%d %s=%s\n", rec.Seq, rec.Key, rec.Value)
		if rec.Seq == 2 {
			break
		}
	}
	v, err := r.Get("b")
	fmt.Println(string(v), err)
	// Output:
	// 1 a=1
	// 2 b=2
	// 2 <nil>
}

func ExampleReader_Refresh() {
	dir, err := os.MkdirTemp("", "annals")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	dir = filepath.Join(dir, "data")
	db, err := annals.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	db.Put("a", []byte("1"))
	r, err := annals.OpenReader(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	db.Put("a", []byte("2"))
	before, _ := r.Get("a")
	if err := r.Refresh(); err != nil { // or ReaderOptions.Follow
		log.Fatal(err)
	}
	after, _ := r.Get("a")
	fmt.Println(string(before), string(after))
	// Output: 1 2
}

func ExampleVerify() {
	dir, err := os.MkdirTemp("", "annals")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	dir = filepath.Join(dir, "data")
	db, err := annals.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	db.Put("a", []byte("hello"))
	db.Close()

	path := filepath.Join(dir, "00000000000000000001.log")
	text, _ := os.ReadFile(path)
	text[len(text)/2] ^= 1 // a bit rots
	os.WriteFile(path, text, 0o600)

	report, err := annals.Verify(context.Background(), dir, nil)
	fmt.Println(report.OK(), len(report.Problems), err)
	_, err = annals.Open(dir, nil)
	fmt.Println(errors.Is(err, annals.ErrCorrupt))
	// Output:
	// false 1 <nil>
	// true
}

func ExampleRepair() {
	dir, err := os.MkdirTemp("", "annals")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	dir = filepath.Join(dir, "data")
	db, err := annals.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	db.Put("a", []byte("hello"))
	db.Put("b", []byte("world"))
	db.Close()
	os.Remove(filepath.Join(dir, "MANIFEST")) // never do this

	_, err = annals.Open(dir, nil)
	fmt.Println(errors.Is(err, annals.ErrCorrupt))
	report, err := annals.Repair(context.Background(), dir, dir+"-repaired", nil)
	fmt.Println(report.Records, report.OK(), err)
	db, err = annals.Open(dir+"-repaired", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	v, err := db.Get("b")
	fmt.Println(string(v), err)
	// Output:
	// true
	// 2 true <nil>
	// world <nil>
}
