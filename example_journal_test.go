package annals_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/annalsdb/annals"
)

func ExampleOpenJournal() {
	db, done := temp()
	defer done()

	config := map[string]any{"count": 10, "version": "1.4"}
	j, err := annals.OpenJournal(db, "nightly", config)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(j.Record("Get/small", map[string]float64{"ns/op": 12.5})) // durable once it returns

	// The harness was killed, and runs again.
	j, err = annals.OpenJournal(db, "nightly", config)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(j.Done("Get/small"))
	config["count"] = 5
	_, err = annals.OpenJournal(db, "nightly", config)
	fmt.Println(errors.Is(err, annals.ErrConfig), err)
	// Output:
	// <nil>
	// true <nil>
	// true annals: journal has another configuration: "nightly" was begun with sha256:ac634e358856, given is sha256:a7d1b0159ecf: "count" was 10, now it is 5; take another name, or delete the journal
}

func ExampleJournal_Resume() {
	db, done := temp()
	defer done()

	all := []string{"a", "b", "c", "d"}
	run := func(dieAfter int) {
		j, err := annals.OpenJournal(db, "nightly", nil)
		if err != nil {
			log.Fatal(err)
		}
		missing, err := j.Resume(all)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("to do:", missing)
		for i, key := range missing {
			if i == dieAfter {
				return
			}
			if err := j.Record(key, "measured "+key); err != nil {
				log.Fatal(err)
			}
		}
	}
	run(3)
	run(3)
	run(3)
	// Output:
	// to do: [a b c d]
	// to do: [d]
	// to do: []
}

func ExampleJournal_Record() {
	db, done := temp()
	defer done()

	j, err := annals.OpenJournal(db, "nightly", nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(j.Record("a", 1))
	fmt.Println(errors.Is(j.Record("a", 2), annals.ErrRecorded)) // the first one stands
	result, err := j.Result("a")
	fmt.Println(string(result.Value), err)
	// Output:
	// <nil>
	// true
	// 1 <nil>
}

func ExampleJournal_RecordIn() {
	db, done := temp()
	defer done()

	j, err := annals.OpenJournal(db, "nightly", nil)
	if err != nil {
		log.Fatal(err)
	}
	err = db.Update(func(tx *annals.Tx) error { // the samples and the result, or nothing
		for i := range 3 {
			if _, err := tx.Append("latency", fmt.Appendf(nil, "%d", 20+i)); err != nil {
				return err
			}
		}
		return j.RecordIn(tx, "a", map[string]int{"samples": 3})
	})
	fmt.Println(err)
	// Output: <nil>
}

// How far another process is.
func ExampleReadJournal() {
	dir, err := os.MkdirTemp("", "annals")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := annals.Open(filepath.Join(dir, "data"), nil) // the other process
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	j, err := annals.OpenJournal(db, "nightly", nil)
	if err != nil {
		log.Fatal(err)
	}
	j.Resume([]string{"a", "b"})
	j.Record("a", 1.5)

	r, err := annals.OpenReader(filepath.Join(dir, "data"), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()
	live, err := annals.ReadJournal(r, "nightly")
	if err != nil {
		log.Fatal(err)
	}
	info, err := live.Info()
	fmt.Println(info.Done, "of", info.Expected, err)
	for result, err := range live.Watch(context.Background()) { // and on as they come
		fmt.Println(result.Key, string(result.Value), err)
		break
	}
	// Output:
	// 1 of 2 <nil>
	// a 1.5 <nil>
}

func ExampleJournals() {
	db, done := temp()
	defer done()

	for _, name := range []string{"v1.0", "v1.1"} {
		j, err := annals.OpenJournal(db, name, nil)
		if err != nil {
			log.Fatal(err)
		}
		j.Record("a", 1)
	}
	fmt.Println(annals.DeleteJournal(db, "v1.0"))
	for info, err := range annals.Journals(db) {
		fmt.Println(info.Name, info.Done, err)
	}
	// Output:
	// <nil>
	// v1.1 1 <nil>
}
