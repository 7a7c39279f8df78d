package replace_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/annalsdb/annals/replace"
)

// tempDir returns a directory for an example, and a func that removes it.
func tempDir() (dir string, remove func()) {
	dir, err := os.MkdirTemp("", "replace")
	if err != nil {
		log.Fatal(err)
	}
	return dir, func() { os.RemoveAll(dir) }
}

func ExampleWriteFile() {
	dir, remove := tempDir()
	defer remove()
	path := filepath.Join(dir, "config.json")

	// Whatever happens meanwhile, config.json is there, and whole.
	if err := replace.WriteFile(path, []byte(`{"port": 8080}`)); err != nil {
		log.Fatal(err)
	}
	data, err := os.ReadFile(path)
	fmt.Println(string(data), err)
	// Output: {"port": 8080} <nil>
}

func ExampleBegin() {
	dir, remove := tempDir()
	defer remove()
	path := filepath.Join(dir, "report.txt")

	report := func() error {
		p, err := replace.Begin(path, replace.Perm(0o644))
		if err != nil {
			return err
		}
		defer p.Discard() // does nothing after Commit
		for i := range 3 {
			if _, err := fmt.Fprintf(p, "line %d\n", i); err != nil {
				return err
			}
		}
		return p.Commit() // only now there is a report.txt
	}
	if err := report(); err != nil {
		log.Fatal(err)
	}
	data, err := os.ReadFile(path)
	fmt.Print(string(data), err)
	// Output:
	// line 0
	// line 1
	// line 2
	// <nil>
}

// The new contents need not be made from front to back: here a head that is known
// only at the end.
func ExamplePending_WriteAt() {
	dir, remove := tempDir()
	defer remove()
	path := filepath.Join(dir, "list.txt")

	write := func(lines iter.Seq[string]) error {
		p, err := replace.Begin(path)
		if err != nil {
			return err
		}
		defer p.Discard()
		const head = "%4d lines\n"
		off, n := int64(len(fmt.Sprintf(head, 0))), 0
		for line := range lines {
			if _, err := p.WriteAt([]byte(line+"\n"), off); err != nil {
				return err
			}
			off += int64(len(line)) + 1
			n++
		}
		if _, err := p.WriteAt(fmt.Appendf(nil, head, n), 0); err != nil {
			return err
		}
		first := make([]byte, 4)
		if _, err := p.ReadAt(first, 0); err != nil { // what was written can be read again
			return err
		}
		return p.Commit()
	}
	if err := write(slices.Values([]string{"one", "two"})); err != nil {
		log.Fatal(err)
	}
	data, err := os.ReadFile(path)
	fmt.Printf("%s%v\n", data, err)
	// Output:
	//    2 lines
	// one
	// two
	// <nil>
}

// A file that does not change any more is read as memory where the system has that,
// and as a file elsewhere.
func ExampleMap() {
	dir, remove := tempDir()
	defer remove()
	path := filepath.Join(dir, "words")
	if err := replace.WriteFile(path, []byte("alpha beta gamma")); err != nil {
		log.Fatal(err)
	}

	file, err := replace.OS.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		log.Fatal(err)
	}
	var words io.ReaderAt = file
	if m, err := replace.Map(file, info.Size()); err == nil {
		defer m.Close()
		words = m // a page that is not there is ErrFault, and no signal
	}
	word := make([]byte, 4)
	_, err = words.ReadAt(word, 6)
	fmt.Printf("%s %v\n", word, err)
	// Output: beta <nil>
}

func ExampleSyncError() {
	err := replace.WriteFile("no/such/dir/file", nil)

	var syncErr *replace.SyncError
	switch {
	case err == nil:
		fmt.Println("done, and durable")
	case errors.As(err, &syncErr) && syncErr.Unknown:
		fmt.Println("done, but a crash may undo it")
	default:
		fmt.Println("not done")
	}
	// Output: not done
}

func ExampleIsTempOf() {
	// What a killed WriteFile of this file left behind:
	fmt.Println(replace.IsTempOf(".config.json.0f1e2d3c4b5a6978.tmp", "config.json"))
	fmt.Println(replace.IsTempOf("config.json.tmp", "config.json"))
	// Output:
	// true
	// false
}

func ExampleUpdate() {
	dir, remove := tempDir()
	defer remove()
	path := filepath.Join(dir, "counter")

	// Any number of processes may do this at the same time.
	increment := func() error {
		return replace.Update(path, func(old []byte) ([]byte, error) {
			n := 0
			if old != nil {
				var err error
				if n, err = strconv.Atoi(strings.TrimSpace(string(old))); err != nil {
					return nil, err
				}
			}
			return fmt.Appendf(nil, "%d\n", n+1), nil
		})
	}
	for range 3 {
		if err := increment(); err != nil {
			log.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	fmt.Print(string(data), err)
	// Output:
	// 3
	// <nil>
}

func ExampleLock() {
	dir, remove := tempDir()
	defer remove()
	path := filepath.Join(dir, ".lock")

	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	lock, err := replace.Lock(ctx, path, replace.Exclusive)
	if err != nil {
		log.Fatal(err)
	}
	_, err = replace.TryLock(path, replace.Shared)
	fmt.Println("while it is held:", errors.Is(err, replace.ErrLocked))

	lock.Close()
	lock, err = replace.TryLock(path, replace.Shared)
	fmt.Println("later:", err)
	lock.Close()
	// Output:
	// while it is held: true
	// later: <nil>
}

func ExampleLockedOpen() {
	dir, remove := tempDir()
	defer remove()
	path := filepath.Join(dir, "config.json")
	if err := replace.WriteFile(path, []byte(`{"port": 8080}`)); err != nil {
		log.Fatal(err)
	}

	// A reader that holds up every Update until it is done.
	f, err := replace.LockedOpen(context.Background(), path, os.O_RDONLY, replace.Shared)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	fmt.Println(string(data), err)
	// Output: {"port": 8080} <nil>
}

func ExampleAppend() {
	dir, remove := tempDir()
	defer remove()
	path := filepath.Join(dir, "log")

	for i := range 3 {
		measure := fmt.Appendf(nil, `{"timestamp": %d, "value": 0.5}`, 1373396987+i)
		if err := replace.Append(path, measure); err != nil {
			log.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	fmt.Print(string(data), err)
	// Output:
	// {"timestamp": 1373396987, "value": 0.5} a4b3c2a3
	// {"timestamp": 1373396988, "value": 0.5} 2a59a599
	// {"timestamp": 1373396989, "value": 0.5} 84313408
	// <nil>
}

func ExampleReadLines() {
	log := strings.NewReader(`{"n": 1} 0af73c42
{"n": 2} 00000000
{"n": 3`)
	for line, err := range replace.ReadLines(log) {
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(string(line.Object))
	}
	// Output:
	// {"n": 1}
	// line 2 at offset 18: wrong checksum
	// line 3 at offset 36: no checksum
}

func ExampleGenerations() {
	dir, remove := tempDir()
	defer remove()

	mirror, err := replace.OpenGenerations(filepath.Join(dir, "mirror"))
	if err != nil {
		log.Fatal(err)
	}
	publish := func(version string) error {
		next, err := mirror.Begin(context.Background())
		if err != nil {
			return err
		}
		defer next.Discard() // does nothing after Commit
		for _, name := range []string{"a.txt", "index.txt"} {
			if err := os.WriteFile(filepath.Join(next.Dir(), name), []byte(version), 0o600); err != nil {
				return err
			}
		}
		return next.Commit() // both files at once
	}
	if err := publish("first"); err != nil {
		log.Fatal(err)
	}

	reader, err := mirror.Hold()
	if err != nil {
		log.Fatal(err)
	}
	defer reader.Close()
	if err := publish("second"); err != nil {
		log.Fatal(err)
	}
	for _, name := range []string{"a.txt", "index.txt"} {
		data, err := os.ReadFile(filepath.Join(reader.Dir(), name))
		fmt.Println("holding:", string(data), err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "mirror", "current", "index.txt"))
	fmt.Println("current:", string(data), err)
	// Output:
	// holding: first <nil>
	// holding: first <nil>
	// current: second <nil>
}

func ExampleSpool() {
	dir, remove := tempDir()
	defer remove()

	spool, err := replace.OpenSpool(filepath.Join(dir, "outgoing"))
	if err != nil {
		log.Fatal(err)
	}
	for _, mail := range []string{"to Ann", "to Bob"} {
		if _, err := spool.Put([]byte(mail)); err != nil {
			log.Fatal(err)
		}
	}

	// In another process, or in several:
	for {
		item, err := spool.Claim()
		if errors.Is(err, replace.ErrEmpty) {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		mail, err := item.Bytes()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("sending", string(mail))
		if err := item.Done(); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// sending to Ann
	// sending to Bob
}

func ExampleMkdirAll() {
	dir, remove := tempDir()
	defer remove()
	path := filepath.Join(dir, "var", "lib", "app")

	err := replace.MkdirAll(replace.OS, path, 0o700)
	info, _ := os.Stat(path)
	fmt.Println(err, info.Mode())
	// Output: <nil> drwx------
}
