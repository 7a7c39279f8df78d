package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/annalsdb/annals"
	"github.com/annalsdb/annals/replace"
)

// An intake moves items from a spool into a store, each exactly once:
//
//	SPOOL/
//	|-- 1732284001-7.ndjson              an item
//	|-- 1732284001-8.ndjson.tmp          one in progress, passed over
//	|-- .taken-STORE-WHEN-RANDOM-NAME    one that the intake into STORE has taken
//	|-- .annals.lock                     who takes items from this spool
//	|-- .annals.spool                    the spool's identity
//	`-- rejected/                        bad items, and beside each NAME.reason
//
// An item is made of ops as load reads them, one a line, and is one commit. Its way:
//
//  1. take: it is renamed to a name that no item ever had or gets. What a producer
//     puts under its old name from then on is another item.
//  2. The directory is synced: the item can't be back under its old name.
//  3. ingest: its ops and a key, the mark, which holds the taken name, become true
//     in one commit.
//  4. finish: once that is durable the item is removed, and the directory is synced:
//     the item can't be back at all.
//  5. The mark is deleted.
//
// So a crash leaves one of these, which resume tells apart:
//
//	before 2  the item under the one name or the other, no mark: it is taken, or ingested
//	before 3  the taken item, no mark: it is ingested
//	before 4  the taken item and its mark: it is removed, not ingested
//	before 5  a mark alone: it is deleted, behind a sync of the directory
//
// Instead of 3 to 5 a bad item gets a second name in rejected/, and loses the first
// once that is durable.
//
// Who holds the lock is the only one to take from the spool. Marks name the spool:
// that a mark has no item can be said of one's own alone.
type intake struct {
	store    *annals.Store
	fsys     replace.FS
	spool    string
	maxValue int
	warn     func(format string, args ...any)

	lock    replace.File
	id      string          // the spool's
	prefix  string          // of the names of what this intake takes: the store's identity
	listed  []string        // items of the last listing that are not taken yet: one listing serves many rounds
	pending []string        // taken and not ingested yet, in order
	last    int64           // when the last item was taken, in nanoseconds
	stuck   map[string]bool // items that can't be taken, which was told
	passed  map[string]bool // what is no item though its name is one's, which was told
	report  ingestReport
}

// ingestReport is what an intake has done.
type ingestReport struct {
	Items    int `json:"items"`    // ingested
	Records  int `json:"records"`  // in them
	Again    int `json:"again"`    // found ingested already, by an intake that was killed
	Rejected int `json:"rejected"` // bad items
	Stuck    int `json:"stuck"`    // items that could not be taken
}

// What is the intake's own in a spool.
const (
	takenPrefix  = ".taken-"
	lockName     = ".annals.lock"
	identityName = ".annals.spool"
	rejectedDir  = "rejected"
)

// markPrefix is what the keys of marks begin with.
const markPrefix = "annals.ingest/"

// A round takes at most so many items, and ingests them before it takes others.
const maxRound = 256

func (in *intake) path(elem ...string) string {
	return filepath.Join(append([]string{in.spool}, elem...)...)
}

func (in *intake) mark(taken string) string { return markPrefix + in.id + "/" + taken }

// open gets the spool ready and finds out what an earlier intake has left.
func (in *intake) open() (err error) {
	in.stuck, in.passed, in.listed, in.pending = map[string]bool{}, map[string]bool{}, nil, nil
	info, err := in.fsys.Lstat(in.spool)
	if err == nil && info.Mode()&fs.ModeSymlink == 0 && !info.IsDir() {
		err = fmt.Errorf("%q is no directory", in.spool)
	}
	if err != nil {
		return err
	}
	in.lock, err = replace.TryLock(in.path(lockName), replace.Exclusive, replace.On(in.fsys))
	if errors.Is(err, replace.ErrLocked) {
		return fmt.Errorf("another process takes items from the spool %q: %w", in.spool, err)
	}
	if err != nil {
		return err
	}
	in.prefix = takenPrefix + in.store.Stats().Store + "-"
	err = in.identify()
	if err == nil {
		err = in.resume()
	}
	if err != nil {
		return errors.Join(err, in.close())
	}
	return nil
}

func (in *intake) close() error { return in.lock.Close() }

// identify reads the spool's identity, and gives it one before anything is taken.
func (in *intake) identify() error {
	path := in.path(identityName)
	text, err := in.readFile(path, 64)
	if errors.Is(err, fs.ErrNotExist) {
		text = []byte(randomHex(8) + "\n")
		err = replace.WriteFile(path, text, replace.On(in.fsys))
	}
	if err != nil {
		return err
	}
	in.id = strings.TrimSpace(string(text))
	if _, err := hex.DecodeString(in.id); err != nil || len(in.id) != 16 {
		return fmt.Errorf("%q does not hold the 16 hex digits that identify a spool", path)
	}
	return nil
}

// resume goes on where an intake was killed.
func (in *intake) resume() error {
	entries, err := in.fsys.ReadDir(in.spool)
	if err != nil {
		return err
	}
	var marked []string
	others := 0
	for _, entry := range entries {
		name := entry.Name()
		switch {
		case !strings.HasPrefix(name, takenPrefix):
			continue
		case !strings.HasPrefix(name, in.prefix):
			others++
			continue
		}
		switch _, err := in.store.Lookup(in.mark(name)); {
		case err == nil:
			marked = append(marked, name)
		case errors.Is(err, annals.ErrNotFound):
			in.pending = append(in.pending, name)
		default:
			return err
		}
	}
	if others > 0 {
		in.warn("%d items in %s were taken by intakes into other stores, which have to finish them", others, printable(in.spool))
	}
	in.report.Again = len(marked)
	// The sync, which comes even where there is nothing to remove, also makes final
	// what the earlier intake had removed and taken.
	if err := in.remove(marked); err != nil {
		return err
	}
	return in.deleteMarks()
}

// deleteMarks deletes all marks of this spool; there are no items to them any more,
// durably.
func (in *intake) deleteMarks() error {
	var batch annals.Batch
	for entry, err := range in.store.Scan(annals.Range{Prefix: in.mark(""), KeysOnly: true}) {
		if err != nil {
			return err
		}
		batch.Delete(entry.Key)
	}
	if batch.Len() == 0 {
		return nil
	}
	_, err := in.store.Apply(&batch)
	return err
}

// round ingests up to maxRound items and returns how many it has dealt with.
func (in *intake) round() (n int, err error) {
	if len(in.pending) == 0 {
		if err := in.take(); err != nil {
			return 0, err
		}
	}
	n = len(in.pending)
	err = in.ingest()
	return n - len(in.pending), err
}

// take takes the next items.
func (in *intake) take() error {
	if len(in.listed) == 0 {
		if err := in.list(); err != nil {
			return err
		}
	}
	for len(in.listed) > 0 && len(in.pending) < maxRound {
		name := in.listed[0]
		in.listed = in.listed[1:]
		taken := in.takenName(name)
		switch err := in.rename(name, taken); {
		case err == nil:
			in.pending = append(in.pending, taken)
		case errors.Is(err, replace.ErrLocked):
			// Another consumer, by the rules of replace.Spool, is at it.
		case errors.Is(err, fs.ErrNotExist):
			// Its producer, or somebody else, has taken it back.
		case errors.Is(err, fs.ErrPermission), errors.Is(err, replace.ErrNotRegular):
			if !in.stuck[name] {
				in.stuck[name] = true
				in.report.Stuck++
				in.warn("the item %s stays where it is: %s", printable(name), plain(err.Error()))
			}
		default:
			return err
		}
	}
	if len(in.pending) == 0 {
		return nil
	}
	return in.fsys.SyncDir(in.spool)
}

// rename takes one item, unless a consumer by the rules of replace.Spool has it, or it
// can't be read.
func (in *intake) rename(name, taken string) error {
	f, err := in.fsys.OpenFile(in.path(name), os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Lock(true, false); err != nil {
		return err
	}
	return in.fsys.Rename(in.path(name), in.path(taken))
}

// list lists the items that producers have put there, in the order of their names. A
// listing may miss an item that came while it was made, and have one that came after
// that. So there are two, and the second counts, up to the last name of the first:
// what came before that one did was there when the second began.
func (in *intake) list() error {
	first, err := in.items()
	if err != nil || len(first) == 0 {
		return err
	}
	second, err := in.items()
	if err != nil {
		return err
	}
	n, found := slices.BinarySearch(second, first[len(first)-1])
	if found {
		n++
	}
	in.listed = second[:n]
	return nil
}

// items lists the spool.
func (in *intake) items() (list []string, err error) {
	entries, err := in.fsys.ReadDir(in.spool)
	for _, entry := range entries {
		name := entry.Name()
		switch {
		case strings.HasPrefix(name, "."), strings.HasSuffix(name, ".tmp"):
		case entry.Type().IsRegular():
			list = append(list, name)
		case name != rejectedDir || !entry.IsDir():
			in.passOver(entry)
		}
	}
	return list, err
}

// passOver says once that something that looks like an item is none. It is not opened:
// a link may lead anywhere, and a pipe has no end.
func (in *intake) passOver(entry fs.DirEntry) {
	if in.passed[entry.Name()] {
		return
	}
	in.passed[entry.Name()] = true
	kind := "no regular file"
	switch entry.Type() {
	case fs.ModeDir:
		kind = "a directory"
	case fs.ModeSymlink:
		kind = "a symbolic link"
	case fs.ModeNamedPipe:
		kind = "a named pipe"
	case fs.ModeSocket:
		kind = "a socket"
	}
	in.warn("%s in %s is %s and stays where it is: items are regular files", printable(entry.Name()), printable(in.spool), kind)
}

// maxTakenName bounds the part of an item's name that its taken name ends with:
// names have at most 255 bytes.
const maxTakenName = 160

// takenName is a name for an item that is its own for ever. Names sort as they were
// taken.
func (in *intake) takenName(name string) string {
	in.last = max(in.last+1, time.Now().UnixNano())
	return fmt.Sprintf("%s%019d-%s-%s", in.prefix, in.last, randomHex(4), name[:min(len(name), maxTakenName)])
}

// givenName is the name that a taken item had.
func (in *intake) givenName(taken string) (name, unique string) {
	parts := strings.SplitN(strings.TrimPrefix(taken, in.prefix), "-", 3)
	if len(parts) != 3 {
		return taken, taken
	}
	return parts[2], parts[0] + "-" + parts[1]
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// ingest writes the pending items. Those that could not be dealt with stay pending.
func (in *intake) ingest() error {
	commits := make([]*annals.Commit, len(in.pending))
	records := make([]int, len(in.pending))
	outcomes := make([]error, len(in.pending))
	for i, name := range in.pending {
		var batch *annals.Batch
		if batch, outcomes[i] = in.read(name); outcomes[i] != nil {
			continue
		}
		records[i] = batch.Len()
		batch.Put(in.mark(name), fmt.Appendf(nil, `{"records":%d}`, records[i]))
		commits[i] = in.store.Submit(batch)
	}
	var done, left []string
	bad := map[string]error{}
	var failure error
	for i, name := range in.pending {
		if commits[i] != nil {
			_, outcomes[i] = commits[i].Wait(context.Background())
		}
		switch err := outcomes[i]; {
		case err == nil:
			done = append(done, name)
			in.report.Items++
			in.report.Records += records[i]
		case errors.As(err, new(*badItemError)), errors.Is(err, annals.ErrTooLarge):
			bad[name] = err
			left = append(left, name)
		default:
			failure = cmp.Or(failure, err)
			left = append(left, name)
		}
	}
	in.pending = left
	if err := in.finish(done); err != nil {
		return errors.Join(failure, err)
	}
	return cmp.Or(failure, in.rejectAll(bad))
}

// rejectAll rejects the bad ones of the pending items, in order.
func (in *intake) rejectAll(bad map[string]error) error {
	for _, name := range slices.Clone(in.pending) {
		if bad[name] == nil {
			continue
		}
		if err := in.reject(name, bad[name]); err != nil {
			return err
		}
		in.pending = slices.DeleteFunc(in.pending, func(other string) bool { return other == name })
	}
	return nil
}

// finish removes items that were ingested, and then their marks.
func (in *intake) finish(done []string) error {
	if len(done) == 0 {
		return nil
	}
	// Also where commits are not synced one by one: nothing else holds the items soon.
	if _, err := in.store.Sync(context.Background()); err != nil {
		return err
	}
	if err := in.remove(done); err != nil {
		return err
	}
	var batch annals.Batch
	for _, name := range done {
		batch.Delete(in.mark(name))
	}
	_, err := in.store.Apply(&batch)
	return err
}

func (in *intake) remove(taken []string) error {
	for _, name := range taken {
		if err := in.fsys.Remove(in.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return in.fsys.SyncDir(in.spool)
}

// badItemError says what is wrong with an item.
type badItemError struct{ error }

func (e *badItemError) Unwrap() error { return e.error }

// read makes a taken item one batch.
func (in *intake) read(taken string) (*annals.Batch, error) {
	content, err := in.readFile(in.path(taken), maxCommit)
	switch {
	case errors.Is(err, annals.ErrTooLarge), errors.Is(err, replace.ErrNotRegular):
		return nil, &badItemError{err}
	case err != nil:
		return nil, err
	}
	batch, err := readItem(content, in.maxValue)
	if err != nil {
		return nil, &badItemError{err}
	}
	return batch, nil
}

// readItem makes the ops of an item one batch.
func readItem(content []byte, maxValue int) (*annals.Batch, error) {
	var batch annals.Batch
	more := false
	lines := newLineReader(bytes.NewReader(content))
	for {
		line, err := lines.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		o, err := parseOp(line)
		if err == nil {
			err = o.check(maxValue)
		}
		if err != nil {
			return nil, lines.fail(err)
		}
		o.addTo(&batch)
		more = o.more
	}
	switch {
	case batch.Len() == 0:
		return nil, errors.New("the item holds no ops; was it synced before it was renamed?")
	case more:
		return nil, lines.fail(errors.New(`the last op says "more": the item was cut short`))
	}
	return &batch, nil
}

// readFile reads a file of at most limit bytes.
func (in *intake) readFile(path string, limit int64) ([]byte, error) {
	f, err := in.fsys.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := replace.SizeOf(f)
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("%w: the file has %d bytes, more than %d", annals.ErrTooLarge, size, limit)
	}
	content := make([]byte, size)
	n, err := f.ReadAt(content, 0)
	if n == len(content) {
		err = nil // also at the end of the file
	}
	return content[:n], err
}

// reject moves a bad item to rejected/, its reason beside it.
func (in *intake) reject(taken string, reason error) error {
	if err := in.makeRejected(); err != nil {
		return err
	}
	name, there, err := in.rejectedName(taken)
	if err != nil {
		return err
	}
	text := failureText(reason)
	err = replace.WriteFile(in.path(rejectedDir, name+".reason"), []byte(text+"\n"), replace.On(in.fsys), replace.Perm(0o644))
	if err != nil {
		return err
	}
	if !there {
		err = in.fsys.Link(in.path(taken), in.path(rejectedDir, name))
	}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) { // a file system without links, such as FAT
		err = in.fsys.Rename(in.path(taken), in.path(rejectedDir, name))
	}
	if err == nil {
		err = in.fsys.SyncDir(in.path(rejectedDir))
	}
	if err != nil {
		return err
	}
	in.report.Rejected++
	in.warn("rejected the item %s: %s", printable(name), text)
	return in.remove([]string{taken})
}

// makeRejected makes the directory for bad items. A planted link would lead them
// elsewhere.
func (in *intake) makeRejected() error {
	dir := in.path(rejectedDir)
	if err := replace.MkdirAll(in.fsys, dir, 0o755); err != nil {
		return err
	}
	info, err := in.fsys.Lstat(dir)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%q is no directory", dir)
	}
	return err
}

// rejectedName is the name that a bad item had, unless another one has it in
// rejected/, or a reason might. A crash may have left the item there already.
func (in *intake) rejectedName(taken string) (name string, there bool, err error) {
	item, err := in.fsys.Lstat(in.path(taken))
	if err != nil {
		return "", false, err
	}
	given, unique := in.givenName(taken)
	if !strings.HasSuffix(given, ".reason") {
		switch other, err := in.fsys.Lstat(in.path(rejectedDir, given)); {
		case errors.Is(err, fs.ErrNotExist):
			return given, false, nil
		case err != nil:
			return "", false, err
		case in.fsys.SameFile(item, other):
			return given, true, nil
		}
	}
	name = unique + "-" + given
	other, err := in.fsys.Lstat(in.path(rejectedDir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return name, false, nil
	}
	return name, err == nil && in.fsys.SameFile(item, other), err
}
