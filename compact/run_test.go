package compact

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/annalsdb/annals/fuzz/seed"
	"github.com/annalsdb/annals/replace"
	"github.com/annalsdb/annals/segment"
)

// faulty is the real file system with a fault: it counts operations, and does
// something to one of them, or to all from there on.
type faulty struct {
	replace.FS
	mu      sync.Mutex
	ops     []string
	handles int
	at      int // the operation that fails, counted from 1; 0 for none
	forever bool
	garble  func(p []byte) []byte // what a write that is hit writes instead
	hit     int
	rotten  uint64 // the file of which a byte reads wrong
	rot     int64  // that byte
	rots    int    // how often it was read
}

var errDisk = errors.New("disk error")

func (f *faulty) op(verb, path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, _ := segment.ParseName(filepath.Base(path))
	f.ops = append(f.ops, strings.TrimSuffix(fmt.Sprint(verb, " ", n), " 0"))
	if f.at > 0 && (len(f.ops) == f.at || f.forever && len(f.ops) > f.at) {
		f.hit++
		return &fs.PathError{Op: verb, Path: path, Err: errDisk}
	}
	return nil
}

func (f *faulty) OpenFile(name string, flag int, perm fs.FileMode) (replace.File, error) {
	verb := "open"
	if flag&os.O_CREATE != 0 {
		verb = "create"
	}
	if err := f.op(verb, name); err != nil {
		return nil, err
	}
	file, err := f.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	f.count(1)
	return &faultyFile{File: file, fs: f, name: name}, nil
}

func (f *faulty) count(handles int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.handles += handles
}

func (f *faulty) Remove(name string) error {
	if err := f.op("remove", name); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

func (f *faulty) SyncDir(name string) error {
	if err := f.op("syncdir", ""); err != nil {
		return err
	}
	return f.FS.SyncDir(name)
}

type faultyFile struct {
	replace.File
	fs   *faulty
	name string
}

func (f *faultyFile) WriteAt(p []byte, off int64) (int, error) {
	err := f.fs.op("write", f.name)
	if f.fs.garble != nil && err != nil {
		if _, err := f.File.WriteAt(f.fs.garble(bytes.Clone(p)), off); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	if err != nil {
		n, _ := f.File.WriteAt(p[:len(p)/2], off)
		return n, err
	}
	return f.File.WriteAt(p, off)
}

func (f *faultyFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.fs.op("read", f.name); err != nil {
		return 0, err
	}
	n, err := f.File.ReadAt(p, off)
	if at := f.fs.rot - off; f.number() == f.fs.rotten && at >= 0 && at < int64(n) {
		p[at] ^= 1
		f.fs.rots++
	}
	return n, err
}

func (f *faultyFile) number() uint64 {
	n, _ := segment.ParseName(filepath.Base(f.name))
	return n
}

func (f *faultyFile) Stat() (fs.FileInfo, error) {
	if err := f.fs.op("stat", f.name); err != nil {
		return nil, err
	}
	return f.File.Stat()
}

func (f *faultyFile) Sync() error {
	if err := f.fs.op("fsync", f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

// Close closes, whether or not it fails, as the system call does.
func (f *faultyFile) Close() error {
	f.fs.count(-1)
	return errors.Join(f.fs.op("close", f.name), f.File.Close())
}

// bench is a job at hand: inputs made by Writer, and what was put into them.
type bench struct {
	*testing.T
	fs     *faulty
	dir    string
	job    *Job
	data   map[uint64][]byte // of inputs
	lines  map[uint64]string // by sequence number
	names  map[uint64]string
	kinds  map[uint64]segment.Kind
	judged map[uint64]Verdict // Keep if absent
	seq    uint64
	number atomic.Uint64

	mu    sync.Mutex
	noted map[uint64][]noted // by output
	ended atomic.Int64       // how many of them are done
}

// noted is a record as Job.Samples or Job.Keys is told of it.
type noted struct {
	series       string
	seq          uint64
	at           int64
	offset, size int64
}

func (b *bench) note(output uint64) (add func([]byte, *segment.Line), done func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.noted[output] = []noted{}
	return func(series []byte, l *segment.Line) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.noted[output] = append(b.noted[output], noted{string(series), l.View.Seq, l.View.At, l.Offset, l.Size})
	}, func() { b.ended.Add(1) }
}

func newBench(t *testing.T, segmentSize int64) *bench {
	b := &bench{
		T: t, fs: &faulty{FS: replace.OS}, dir: t.TempDir(),
		data: map[uint64][]byte{}, lines: map[uint64]string{}, names: map[uint64]string{}, kinds: map[uint64]segment.Kind{}, judged: map[uint64]Verdict{}, noted: map[uint64][]noted{},
	}
	b.number.Store(100)
	b.job = &Job{
		FS: b.fs, Dir: b.dir, Store: storeID, SegmentSize: segmentSize,
		Judge: func(input uint64, l *segment.Line) Verdict {
			v := &l.View
			if name := v.Name(); b.names[v.Seq] != name {
				t.Errorf("Judge is asked about %q as %q", b.names[v.Seq], name)
			}
			if data := b.data[input]; !bytes.HasPrefix(data[l.Offset:], fmt.Appendf(nil, `{"seq":%d,`, v.Seq)) {
				t.Errorf("record %d is not at %d of input %d", v.Seq, l.Offset, input)
			}
			return b.judged[v.Seq]
		},
		NewSegment: func() uint64 { return b.number.Add(1) },
		Samples:    b.note,
		Keys:       b.note,
		Pace:       func(context.Context, int) error { return nil },
	}
	return b
}

// input makes a segment of records, as first written, and makes it an input.
func (b *bench) input(apart bool, records ...segment.Record) {
	b.Helper()
	number := uint64(len(b.job.Inputs) + 1)
	dir := b.TempDir()
	w, err := NewWriter(replace.OS, dir, segment.Header{Store: storeID, Segment: number, First: b.seq + 1})
	require.NoError(b, err)
	for _, r := range records {
		b.seq++
		r.Seq = b.seq
		line := segment.AppendRecord(nil, &r)
		b.lines[r.Seq], b.names[r.Seq], b.kinds[r.Seq] = string(line), r.Name, r.Kind
		size := w.Size()
		offset, err := w.Add(r.Seq, line)
		require.NoError(b, err)
		require.Equal(b, size, offset)
	}
	footer, err := w.Finish()
	require.NoError(b, err)
	data, err := os.ReadFile(w.Path())
	require.NoError(b, err)
	require.Equal(b, filepath.Join(dir, segment.Name(number)), w.Path())
	require.EqualValues(b, footer.Size(), len(data))
	b.data[number] = data
	in := Input{Footer: footer, Path: w.Path(), R: bytes.NewReader(data), Apart: apart}
	if number%2 == 0 {
		in.Mapped = data
	}
	b.job.Inputs = append(b.job.Inputs, in)
}

func (b *bench) run() (*Result, error) { return Run(b.Context(), b.job) }

// nothing checks that a job that failed has left no file, and nothing open.
func (b *bench) nothing() {
	b.Helper()
	require.Empty(b, b.files())
	require.Zero(b, b.fs.handles, "files left open")
}

func (b *bench) files() (names []string) {
	b.Helper()
	entries, err := os.ReadDir(b.dir)
	require.NoError(b, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

var values = []string{`{"a":1}`, ` [1.0e+5, "\u00e9", -0] `, "two\nlines", "\x00\x01\xff", "", "true", strings.Repeat("x", 300)}

// record makes a random record.
func record(rng *rand.Rand) segment.Record {
	r := segment.Record{Kind: segment.Put, Name: fmt.Sprint("key ", rng.IntN(30)), Value: []byte(values[rng.IntN(len(values))])}
	switch rng.IntN(6) {
	case 0:
		r.Kind, r.Value = segment.Delete, nil
	case 1, 2:
		r.Kind, r.Name, r.At = segment.Sample, fmt.Sprint("series ", rng.IntN(3)), rng.Int64N(1e15)
	case 3:
		r.Expires = 1 + rng.Int64N(1e15)
	case 4:
		r.Name = "\xff" + r.Name
	}
	return r
}

// TestRun makes random jobs and checks everything about their outputs, and then
// jobs with these outputs among their inputs. Most of them have little room in
// memory, and half do all they can at the same time.
func TestRun(t *testing.T) {
	rng := seed.Rand(t)
	for range 60 {
		b := newBench(t, int64(800+rng.IntN(3000)))
		var outputs []Output
		for generation := range 3 {
			b.job.shrink = []int{1, 1 << 12, 1 << 14, 1 << 20}[rng.IntN(4)]
			b.job.Parallel = rng.IntN(2) == 0
			if generation > 0 {
				b.next(outputs)
			}
			cuts := b.someInputs(rng)
			for seq := range b.lines {
				if b.judged[seq] = Verdict(rng.IntN(3)); b.kinds[seq] == segment.Sample {
					b.judged[seq] = Verdict(rng.IntN(2))
				}
			}
			result, err := b.run()
			require.NoError(t, err)
			require.Zero(t, b.fs.handles)
			b.check(result, cuts)
			outputs = result.Outputs
		}
	}
}

// Keys that are divided between two cores are all there, also the one at which they are.
func TestDividedKeysAreAllThere(t *testing.T) {
	for count := 20; count < 40; count++ {
		b := newBench(t, 300)
		b.job.Parallel, b.job.shrink = true, 1<<12
		for input := range 2 {
			var records []segment.Record
			for i := range count {
				records = append(records, segment.Record{Kind: segment.Put, Name: fmt.Sprintf("%02d", (i*7+input)%count), Value: []byte(`1`)})
			}
			b.input(false, records...)
		}
		result, err := b.run()
		require.NoError(t, err)
		require.Greater(t, len(result.Outputs), 1)
		b.check(result, nil)
	}
}

// someInputs makes random inputs. Samples from each of cuts on are in another output.
func (b *bench) someInputs(rng *rand.Rand) (cuts []uint64) {
	for range 1 + rng.IntN(4) {
		var records []segment.Record
		for range 1 + rng.IntN(40) {
			r := record(rng)
			r.More = len(records) < 5
			r.Dur = b.seq
			records = append(records, r)
		}
		records[len(records)-1].More = false
		apart := len(b.job.Inputs) > 0 && rng.IntN(2) == 0
		if apart {
			cuts = append(cuts, b.seq+1)
		}
		b.input(apart, records...)
		b.seq += uint64(rng.IntN(3)) // segments between that are no inputs
	}
	return cuts
}

// next makes the outputs of the last job inputs of the next one.
func (b *bench) next(outputs []Output) {
	b.Helper()
	old := b.dir
	b.dir = b.TempDir()
	b.job.Dir, b.job.Inputs = b.dir, nil
	for seq, verdict := range b.judged {
		if verdict != Keep {
			delete(b.lines, seq)
		}
	}
	clear(b.judged)
	slices.SortFunc(outputs, func(x, y Output) int { return cmp.Compare(x.Footer.First, y.Footer.First) })
	for i := range outputs {
		number := outputs[i].Header.Segment
		path := filepath.Join(old, segment.Name(number))
		data, err := os.ReadFile(path)
		require.NoError(b, err)
		b.data[number] = data
		b.job.Inputs = append(b.job.Inputs, Input{Footer: outputs[i].Footer, Path: path, R: bytes.NewReader(data)})
	}
}

// check holds a result against the verdicts.
func (b *bench) check(result *Result, cuts []uint64) {
	b.Helper()
	var keys, samples, expired []uint64
	dropped := 0
	for _, seq := range slices.Sorted(maps.Keys(b.lines)) {
		switch {
		case b.judged[seq] == Expire:
			expired = append(expired, seq)
			dropped++
		case b.judged[seq] == Drop:
			dropped++
		case b.kinds[seq] == segment.Sample:
			samples = append(samples, seq)
		default:
			keys = append(keys, seq)
		}
	}
	slices.SortFunc(keys, func(x, y uint64) int { return cmp.Or(strings.Compare(b.names[x], b.names[y]), cmp.Compare(x, y)) })

	var gotKeys, gotSamples, gotExpired []uint64
	var names []string
	for i := range result.Outputs {
		out := &result.Outputs[i]
		names = append(names, segment.Name(out.Header.Segment))
		got := b.output(out)
		switch out.Header.Order {
		case segment.BySeq:
			gotSamples = append(gotSamples, got...)
			for _, cut := range cuts {
				require.False(b, got[0] < cut && got[len(got)-1] >= cut, "%v reaches over %d", got, cut)
			}
		case segment.ByKey:
			gotKeys = append(gotKeys, got...)
		}
	}
	require.EqualValues(b, len(b.noted), b.ended.Load())
	require.Equal(b, keys, gotKeys)
	require.Equal(b, samples, gotSamples)
	for _, r := range result.Expired {
		require.Equal(b, b.names[r.Seq], r.Name)
		gotExpired = append(gotExpired, r.Seq)
	}
	require.Equal(b, expired, gotExpired)
	require.EqualValues(b, len(keys)+len(samples), result.Kept)
	require.EqualValues(b, dropped, result.Dropped)
	slices.Sort(names)
	require.Equal(b, names, b.files())
}

// output checks one output file, and returns the numbers in it in the order of the
// lines.
func (b *bench) output(out *Output) (seqs []uint64) {
	b.Helper()
	path := filepath.Join(b.dir, segment.Name(out.Header.Segment))
	data, err := os.ReadFile(path)
	require.NoError(b, err)
	require.True(b, out.Footer.Records == 1 || out.Footer.Bytes <= b.job.SegmentSize, "%d bytes", out.Footer.Bytes)
	problems, err := segment.CheckSealed(bytes.NewReader(data), int64(len(data)), path, storeID, out.Footer, func(l *segment.Line) error {
		require.Equal(b, b.lines[l.View.Seq], string(l.Bytes), "byte for byte")
		require.Equal(b, out.Header.Order == segment.BySeq, l.View.Kind == segment.Sample)
		require.Equal(b, noted{l.View.Name(), l.View.Seq, l.View.At, l.Offset, l.Size}, b.noted[out.Header.Segment][len(seqs)])
		seqs = append(seqs, l.View.Seq)
		return nil
	})
	require.NoError(b, err)
	require.Empty(b, problems)
	require.Len(b, b.noted[out.Header.Segment], len(seqs))
	h, _, err := segment.ReadHeader(bytes.NewReader(data), int64(len(data)), path)
	require.NoError(b, err)
	require.Equal(b, out.Header, h)
	for i := range b.job.Inputs {
		require.True(b, h.MadeFrom(b.job.Inputs[i].Footer.Segment))
	}
	return seqs
}

// little is a job with two inputs, keys and samples, and a record of each kind
// that goes.
func little(t *testing.T) *bench {
	b := newBench(t, 1<<20)
	key := func(name string) segment.Record {
		return segment.Record{Kind: segment.Put, Name: name, Value: []byte(`1`)}
	}
	sample := segment.Record{Kind: segment.Sample, Name: "s", Value: []byte(`2`)}
	b.input(false, key("b"), key("a"), sample, segment.Record{Kind: segment.Delete, Name: "c"})
	b.input(false, key("a"), sample, key("d"))
	b.judged[2] = Drop
	b.judged[4] = Drop
	b.judged[7] = Expire
	return b
}

// The steps of the package comment, in their order.
func TestRunTakesItsStepsInOrder(t *testing.T) {
	b := little(t)
	result, err := b.run()
	require.NoError(t, err)
	b.check(result, nil)
	ops := slices.DeleteFunc(b.fs.ops, func(op string) bool { return strings.HasPrefix(op, "read") || strings.HasPrefix(op, "stat") })
	require.Equal(t, strings.Split("create 101, write 101, write 101, fsync 101, close 101, "+
		"open 101, close 101, create 102, write 102, write 102, fsync 102, close 102, open 102, close 102, syncdir", ", "), ops)
}

func TestRunThatKeepsNothingMakesNoFile(t *testing.T) {
	b := little(t)
	for seq := range b.lines {
		b.judged[seq] = Drop
	}
	result, err := b.run()
	require.NoError(t, err)
	require.Empty(t, result.Outputs)
	require.EqualValues(t, 7, result.Dropped)
	require.Empty(t, b.fs.ops)
	b.nothing()
}

// One bad byte anywhere in an input stops the job: a record that can't be read is
// never left behind.
func TestDamagedInputStopsTheJob(t *testing.T) {
	b := little(t)
	for i := range b.job.Inputs {
		in := &b.job.Inputs[i]
		good := b.data[in.Footer.Segment]
		damage := func(data []byte, what string, at int) {
			t.Helper()
			in.R = bytes.NewReader(data)
			_, err := b.run()
			var corrupt *segment.CorruptError
			require.ErrorAs(t, err, &corrupt, "%s at %d", what, at)
			require.Equal(t, in.Path, corrupt.Path)
			b.nothing()
		}
		for at := range good {
			for _, mask := range []byte{0x01, 0x20, 0x80} {
				bad := bytes.Clone(good)
				bad[at] ^= mask
				damage(bad, "flip", at)
			}
			damage(good[:at], "cut", at)
		}
		in.R = bytes.NewReader(good)
	}
	_, err := b.run()
	require.NoError(t, err, "nothing else was wrong")
}

// rotten reads well once and then differently.
type rotten struct {
	io.ReaderAt
	left  int // bytes that are read well
	after io.ReaderAt
}

func (r *rotten) ReadAt(p []byte, off int64) (int, error) {
	if r.left -= len(p); r.left < 0 {
		return r.after.ReadAt(p, off)
	}
	return r.ReaderAt.ReadAt(p, off)
}

// An input may go bad after it was looked at, and what was sorted and put aside
// may before it is merged.
func TestInputThatGoesBadStopsTheJob(t *testing.T) {
	b := little(t)
	result, err := b.run()
	require.NoError(t, err)
	b.next(result.Outputs)
	in := &b.job.Inputs[slices.IndexFunc(result.Outputs, func(o Output) bool { return o.Header.Order == segment.ByKey })]
	good := b.data[in.Footer.Segment]
	line := strings.Index(string(good), b.lines[5])
	other := bytes.Clone(good)
	copy(other[line:], strings.Replace(b.lines[5], `"val":1`, `"val":2`, 1))
	// Another record, valid in itself, in the same place.
	swapped := bytes.Clone(good)
	r := segment.Record{Seq: 5, Kind: segment.Put, Name: "a", Value: []byte(`7`)}
	copy(swapped[line:], segment.AppendRecord(nil, &r))
	for name, after := range map[string]io.ReaderAt{
		"changed": bytes.NewReader(other), "another": bytes.NewReader(swapped), "shorter": bytes.NewReader(good[:line+5]),
	} {
		in.R = &rotten{ReaderAt: bytes.NewReader(good), left: len(good), after: after}
		_, err := b.run()
		var corrupt *segment.CorruptError
		require.ErrorAs(t, err, &corrupt, name)
		require.Equal(t, in.Path, corrupt.Path)
		b.nothing()
	}
}

// Lines that stay where an input is mapped are copied only after all of them were
// checked. What goes bad meanwhile stops the job, also where the memory is gone.
func TestMappedInputThatGoesBadStopsTheJob(t *testing.T) {
	for name, spoil := range map[string]func(b *bench, in *Input) string{
		"cut off": func(b *bench, in *Input) string {
			require.NoError(b, os.Truncate(in.Path, 0))
			return ""
		},
		"changed": func(b *bench, in *Input) string {
			copy(in.Mapped[bytes.Index(in.Mapped, []byte(`"val":`)):], `"val":9`)
			return "the copy is not what was written"
		},
		"another": func(b *bench, in *Input) string {
			r := segment.Record{Seq: 1, Kind: segment.Put, Name: "b", Value: []byte(`1`)}
			copy(in.Mapped[bytes.Index(in.Mapped, []byte(`{"seq":1,`)):], segment.AppendRecord(nil, &r))
			return "the copy does not hold the records"
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, 1<<20)
			b.input(false, segment.Record{Kind: segment.Put, Name: "a", Value: []byte(`1`)}, segment.Record{Kind: segment.Put, Name: "c", Value: []byte(`3`)})
			in := &b.job.Inputs[0]
			file, err := replace.OS.OpenFile(in.Path, os.O_RDWR, 0)
			require.NoError(t, err)
			defer file.Close()
			mapping, err := replace.Map(file, in.Footer.Size())
			if errors.Is(err, errors.ErrUnsupported) {
				mapping, err = nil, nil
			}
			require.NoError(t, err)
			in.R, in.Mapped = file, bytes.Clone(b.data[1])
			if name == "cut off" && mapping != nil {
				defer mapping.Close()
				in.Mapped = mapping.Bytes()
			}
			judge, want := b.job.Judge, ""
			b.job.Judge = func(input uint64, l *segment.Line) Verdict {
				if l.View.Seq == 2 {
					want = spoil(b, in)
				}
				return judge(input, l)
			}
			_, err = b.run()
			if name == "cut off" {
				var corrupt *segment.CorruptError
				require.ErrorAs(t, err, &corrupt)
				require.Equal(t, in.Path, corrupt.Path)
			} else {
				require.ErrorContains(t, err, want)
			}
			b.nothing()
		})
	}
}

// What is put aside while it waits to be merged is read again with as much
// suspicion as any segment.
func TestSpillThatGoesBadStopsTheJob(t *testing.T) {
	b := little(t)
	b.job.shrink = 1 << 20
	result, err := b.run()
	require.NoError(t, err)
	b.check(result, nil)
	spills := 0
	for _, op := range b.fs.ops {
		var n uint64
		if _, err := fmt.Sscanf(op, "remove %d", &n); err != nil {
			continue
		}
		spills++
		for at := int64(0); ; at += 3 {
			b := little(t)
			b.job.shrink = 1 << 20
			b.fs.rotten, b.fs.rot = n, at
			_, err := b.run()
			if b.fs.rots == 0 {
				require.NoError(t, err, "the byte is behind the end")
				require.Greater(t, at, int64(200))
				break
			}
			require.Error(t, err, "byte %d", at)
			require.NotErrorIs(t, err, segment.ErrCorrupt)
			b.nothing()
		}
	}
	require.Equal(t, 2, spills)
}

// A read error is no damage: it says nothing of what is on the disk.
func TestReadErrorStopsTheJob(t *testing.T) {
	b := little(t)
	for left := range 3 * len(b.data[2]) {
		b.job.Inputs[1].R = &rotten{ReaderAt: bytes.NewReader(b.data[2]), left: left, after: failingReader{}}
		_, err := b.run()
		if err == nil {
			require.Greater(t, left, len(b.data[2]))
			return
		}
		require.ErrorIs(t, err, errDisk)
		require.NotErrorIs(t, err, segment.ErrCorrupt)
		b.nothing()
	}
	t.Error("no run was without an error")
}

type failingReader struct{}

func (failingReader) ReadAt([]byte, int64) (int, error) { return 0, errDisk }

// Every operation fails once, or from then on.
func TestErrorAtEveryOperationLeavesNothing(t *testing.T) {
	for i := range 4 {
		forever := i%2 == 1
		for k := 1; ; k++ {
			b := little(t)
			b.fs.at, b.fs.forever, b.job.shrink = k, forever, 1<<(10*(i&2))
			result, err := b.run()
			if b.fs.hit == 0 {
				require.NoError(t, err)
				b.check(result, nil)
				require.Greater(t, k, 20)
				break
			}
			op := b.fs.ops[k-1]
			if name, closed := strings.CutPrefix(op, "close "); closed && err == nil {
				require.NotContains(t, b.fs.ops, "fsync "+name, "only what was put aside may fail to close")
				continue
			}
			require.ErrorIs(t, err, errDisk, op)
			require.Nil(t, result, op)
			require.Zero(t, b.fs.handles, op)
			if !forever {
				b.nothing()
			}
		}
	}
}

// The same where samples of each input go to an output of their own.
func TestErrorAtEveryOperationOfInputsApart(t *testing.T) {
	for k := 1; ; k++ {
		b := little(t)
		for i := range b.job.Inputs {
			b.job.Inputs[i].Apart = true
		}
		b.fs.at = k
		_, err := b.run()
		if b.fs.hit == 0 {
			require.NoError(t, err)
			require.Greater(t, k, 20)
			break
		}
		require.ErrorIs(t, err, errDisk)
		b.nothing()
	}
}

// A job may be stopped whenever it is asked whether to go on.
func TestStoppedJobLeavesNothing(t *testing.T) {
	for i, byContext := range []bool{true, false, true, false} {
		shrink := 1 << (10 * (i & 2))
		for stop := 1; ; stop++ {
			b := little(t)
			ctx, cancel := context.WithCancel(t.Context())
			calls, sum := 0, 0
			b.job.shrink = shrink
			b.job.Pace = func(_ context.Context, bytes int) error {
				sum += bytes
				if calls++; calls != stop {
					return nil
				}
				if byContext {
					cancel()
					return nil
				}
				return errDisk
			}
			_, err := Run(ctx, b.job)
			cancel()
			if calls < stop {
				require.NoError(t, err)
				total := 0
				for seq, line := range b.lines {
					total += len(line)
					if b.judged[seq] == Keep {
						total += 2 * len(line) // written, and read again
						if shrink > 1 && b.kinds[seq] != segment.Sample {
							total += len(line) // put aside
						}
					}
				}
				require.Equal(t, total, sum)
				require.Greater(t, stop, 10)
				break
			}
			if byContext && err == nil {
				require.Equal(t, calls, stop, "only the last one is too late")
				continue
			}
			require.ErrorIs(t, err, map[bool]error{true: context.Canceled, false: errDisk}[byContext])
			b.nothing()
		}
	}
}

// What does not come back as it was written stops the job. It is no damage to the
// store, whose segments are all as they were.
func TestBadOutputStopsTheJob(t *testing.T) {
	for name, garble := range map[string]func([]byte) []byte{
		"first byte": func(p []byte) []byte { p[0] ^= 1; return p },
		"last byte":  func(p []byte) []byte { p[len(p)-1] ^= 1; return p },
		"middle":     func(p []byte) []byte { p[len(p)/2] ^= 1; return p },
		"cut":        func(p []byte) []byte { return p[:len(p)-1] },
		"nothing":    func([]byte) []byte { return nil },
		"longer":     func(p []byte) []byte { return append(p, '\n') },
	} {
		t.Run(name, func(t *testing.T) {
			hits := 0
			for k := 1; ; k++ {
				b := little(t)
				b.fs.at, b.fs.garble = k, garble
				_, err := b.run()
				if b.fs.hit == 0 {
					break
				}
				if !strings.HasPrefix(b.fs.ops[k-1], "write") {
					continue
				}
				if name == "longer" && b.fs.ops[k] == b.fs.ops[k-1] {
					continue // the footer is written over what was too much
				}
				hits++
				require.Error(t, err)
				require.NotErrorIs(t, err, segment.ErrCorrupt)
				b.nothing()
			}
			require.GreaterOrEqual(t, hits, 2)
		})
	}
}

// A name that is taken is not written over, and not removed.
func TestOutputNeverReplacesAFile(t *testing.T) {
	b := little(t)
	path := filepath.Join(b.dir, segment.Name(102))
	require.NoError(t, os.WriteFile(path, []byte("somebody's"), 0o600))
	_, err := b.run()
	require.ErrorIs(t, err, fs.ErrExist)
	require.Equal(t, []string{segment.Name(102)}, b.files())
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "somebody's", string(text))
}

// A Writer's segment holds what was added, also above the size of its buffer.
func TestWriter(t *testing.T) {
	dir := t.TempDir()
	w, err := NewWriter(replace.OS, dir, segment.Header{Store: storeID, Segment: 7, First: 3})
	require.NoError(t, err)
	want := segment.Footer{Segment: 7, First: 3, Last: 22, Records: 20}
	for seq := uint64(3); seq <= 22; seq++ {
		r := segment.Record{Seq: seq, Kind: segment.Put, Name: "k", Value: []byte(strings.Repeat("v", 50_000))}
		offset, err := w.Add(seq, segment.AppendRecord(nil, &r))
		require.NoError(t, err)
		require.Less(t, offset, w.Size())
	}
	want.Bytes = w.Size()
	f, err := w.Finish()
	require.NoError(t, err)
	want.CRC = f.CRC
	require.Equal(t, want, f)
	data, err := os.ReadFile(w.Path())
	require.NoError(t, err)
	count := 0
	problems, err := segment.CheckSealed(bytes.NewReader(data), int64(len(data)), w.Path(), storeID, f, func(*segment.Line) error { count++; return nil })
	require.NoError(t, err)
	require.Empty(t, problems)
	require.Equal(t, 20, count)
	require.NoError(t, w.Discard(), "finished or not")
	require.NoFileExists(t, w.Path())

	w, err = NewWriter(replace.OS, dir, segment.Header{Store: storeID, Segment: 8, First: 3})
	require.NoError(t, err)
	_, err = w.Finish()
	require.Error(t, err, "a segment needs a record")
	require.NoError(t, w.Discard())
	require.NoFileExists(t, w.Path())
}
