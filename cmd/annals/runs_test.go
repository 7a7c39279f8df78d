package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/annalsdb/annals"
)

// What a harness may record, and what is measured in it.
func TestMeasurementsOfResults(t *testing.T) {
	one := func(name string, values ...quantity) []measured { return []measured{{name: name, values: values}} }
	for _, test := range []struct {
		key, result string
		want        []measured
	}{
		{"Get", `12.5`, one("Get", quantity{"value", 12.5})},
		{"Get#12", `1`, one("Get", quantity{"value", 1})},
		{"a#b", `{"ms":1,"deep":{"er":{"n":2}}}`, one("a#b", quantity{"ms", 1}, quantity{"deep.er.n", 2})},
		{"k", `{"name":"N","ms":[3,1,2]}`, one("N", quantity{"ms", 3}, quantity{"ms", 1}, quantity{"ms", 2})},
		{"k", `{"values":{"ns/op":5},"config":{"cpu":"x"},"iterations":7}`,
			[]measured{{name: "k", iterations: 7, values: []quantity{{"ns/op", 5}}, config: []benchLabel{{"cpu", "x"}}}}},
		{"k", `{"values":3,"ok":true,"none":null}`, []measured{{name: "k", values: []quantity{{"values", 3}}, config: []benchLabel{{"ok", "true"}}}}},
		{"k", `"cpu: y\nBenchmarkA 10 5 ns/op\r\nnoise\nBenchmarkA 11 6 ns/op\n"`, []measured{
			{name: "A", iterations: 10, values: []quantity{{"ns/op", 5}}, config: []benchLabel{{"cpu", "y"}}},
			{name: "A", iterations: 11, values: []quantity{{"ns/op", 6}}, config: []benchLabel{{"cpu", "y"}}},
		}},
		{"k", `"cpu: y\ncpu: z\nos: x\ncpu:\nBenchmarkA 10 5 ns/op"`, []measured{
			{name: "A", iterations: 10, values: []quantity{{"ns/op", 5}}, config: []benchLabel{{"os", "x"}}},
		}},
		{"k", `"BenchmarkA 10 NaN ns/op"`, nil},
		{"k", `"no numbers"`, nil},
		{"k", `{"error":"timeout"}`, nil},
		{"k", `{"name":5,"ms":1}`, nil},
		{"k", `null`, nil},
		{"k", `true`, nil},
		{"k", `[1,2]`, []measured{{name: "k", values: []quantity{{"value", 1}}}, {name: "k", values: []quantity{{"value", 2}}}}},
		{"k", `{"name":"N","value":5,"unit":"MB/s"}`, []measured{{name: "N", values: []quantity{{"MB/s", 5}}, config: []benchLabel{}}}},
		{"k", `{"ms":5,"unit":"x"}`, []measured{{name: "k", values: []quantity{{"ms", 5}}, config: []benchLabel{{"unit", "x"}}}}},
		{"k", `[]`, nil},
		{"k", `1e999`, nil},
		{"k", ``, nil},
	} {
		if got := measurements(test.key, []byte(test.result)); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %s: measured %+v, want %+v", test.key, test.result, got, test.want)
		}
	}
}

// What is measured in any result is the same after it was stored and read.
func FuzzMeasurements(f *testing.F) {
	f.Add("k#1", []byte(`{"name":"N","ms":[3,1,2],"x":{"y":"z"}}`))
	f.Add("k", []byte(`"cpu: y\nBenchmarkA 10 5 ns/op 3 MB/s\n"`))
	f.Add("", []byte(`-1.5e-3`))
	f.Fuzz(func(t *testing.T, key string, result []byte) {
		if !json.Valid(result) { // a journal holds JSON
			return
		}
		for _, m := range measurements(key, result) {
			text := m.appendJSON(nil)
			if !json.Valid(text) {
				t.Fatalf("%q is not JSON", text)
			}
			again := measurements("other", text)
			if len(again) != 1 {
				t.Fatalf("%s is read as %v", text, again)
			}
			var want, have any
			if err := errors.Join(json.Unmarshal(text, &want), json.Unmarshal(again[0].appendJSON(nil), &have)); err != nil || !reflect.DeepEqual(want, have) {
				t.Fatalf("%s is read as %s: %v", text, again[0].appendJSON(nil), err)
			}
		}
	})
}

// A result that comes through a pipe is durable, and another process is told of it,
// before the next comes.
func TestRunsAreAddedAsTheyCome(t *testing.T) {
	store := filepath.Join(t.TempDir(), "d")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	add := exec.Command(exe)
	add.Args = []string{"annals", "runs", "add", store, "live"}
	add.Stderr = os.Stderr
	in, err := add.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := add.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { add.Process.Kill(); add.Wait() })
	fmt.Fprintln(in, "BenchmarkA 1 1 ns/op")
	untilRun(t, store)

	show := exec.Command(exe)
	show.Args = []string{"annals", "runs", "show", store, "live", "--follow"}
	show.Stderr = os.Stderr
	out, err := show.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := show.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { show.Process.Kill(); show.Wait() })
	limit := time.AfterFunc(30*time.Second, func() { show.Process.Kill() })
	defer limit.Stop()
	shown := bufio.NewReader(out)
	for i := 1; i <= 5; i++ {
		line, err := shown.ReadString('\n')
		if want := fmt.Sprintf(`{"key":"A#%d",`, i); err != nil || !strings.HasPrefix(line, want) {
			t.Fatalf("shown is %q, %v, want %s", line, err, want)
		}
		fmt.Fprintf(in, "BenchmarkA 1 %d ns/op\n", i)
	}
	// It ends when the run is deleted, which needs the store.
	in.Close()
	if err := add.Wait(); err != nil {
		t.Fatal(err)
	}
	annalsWith(t, nil, "runs", "delete", store, "live")
	if _, err := io.Copy(io.Discard, shown); err != nil {
		t.Fatal(err)
	}
	if err := show.Wait(); err == nil || show.ProcessState.ExitCode() != exitNo {
		t.Errorf("show --follow of a deleted run ends with %v", err)
	}
}

// untilRun waits until a run of the store has a result.
func untilRun(t *testing.T, store string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if r, err := annals.OpenReader(store, nil); err == nil {
			for info := range annals.Journals(r) {
				if info.Done > 0 {
					r.Close()
					return
				}
			}
			r.Close()
		}
	}
	t.Fatal("no result came within 30 s")
}

// A harness that has said how many results there will be need not be interrupted.
func TestShowFollowsUpToTheExpectedEnd(t *testing.T) {
	store := filepath.Join(t.TempDir(), "d")
	db, err := annals.Open(store, nil)
	if err != nil {
		t.Fatal(err)
	}
	j, err := annals.OpenJournal(db, "n", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Resume([]string{"a", "b"}); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"b", "a"} {
		if err := j.Record(key, 1); err != nil {
			t.Fatal(err)
		}
	}
	if list := annalsWith(t, nil, "runs", "list", store); !strings.Contains(list, "2 of 2") { // beside the writer
		t.Errorf("the list is\n%s", list)
	}
	shown := annalsWith(t, nil, "runs", "show", store, "n", "--follow")
	if lines := strings.Split(shown, "\n"); len(lines) != 3 || !strings.HasPrefix(lines[0], `{"key":"b",`) {
		t.Errorf("shown is %s", shown)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}
