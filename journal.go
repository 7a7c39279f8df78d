package annals

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// The keys of a journal are
//
//	journal/NAME       {"journal":1,"begun":T,"hash":"sha256:…","config":{…},"expected":180}
//	journal/NAME/KEY   {"at":T,"result":…}
//
// with times in Unix seconds. In NAME a slash is %2F and a percent sign %25; KEY
// stands as it is. All of it is keys, none of it samples: a key can be written once
// only, is found without a search, and retention never takes it.
const (
	journalPrefix = "journal/"
	journalForm   = 1
)

// What a caller may want to decide on; errors of journals wrap these.
var (
	ErrRecorded = errors.New("annals: recorded already")                  // the journal has a result of that key; the first one stands
	ErrConfig   = errors.New("annals: journal has another configuration") // see ConfigError
)

// ConfigError says that a journal was begun with another configuration than the
// one given now: its results and those to come could not be compared. Nothing was
// written. It matches ErrConfig.
type ConfigError struct {
	Journal     string
	Have, Given string // hashes: that of the journal, that of the configuration given
	Differences string // for people: which fields differ, and how
}

func (e *ConfigError) Error() string {
	return fmt.Sprintf("%v: %q was begun with %.19s, given is %.19s: %s; take another name, or delete the journal",
		ErrConfig, e.Journal, e.Have, e.Given, e.Differences)
}

// Is makes errors.Is(err, ErrConfig) true.
func (e *ConfigError) Is(target error) bool { return target == ErrConfig }

// JournalSource is what a journal can be read from: a Store or a Reader.
type JournalSource interface {
	Lookup(key string) (Entry, error)
	Snapshot() *Snapshot
	Watch(ctx context.Context, from uint64) iter.Seq2[Record, error]
}

// JournalInfo describes a journal.
type JournalInfo struct {
	Name     string
	Config   json.RawMessage // as it was given, fields in order
	Hash     string          // of Config: "sha256:" and 64 hex digits
	Begun    time.Time
	Expected int       // how many results there will be, 0 if nobody has said; see Journal.Resume
	Done     int       // how many there are
	Last     time.Time // when the newest was recorded; zero if there is none
}

// Result is what was recorded of one key.
type Result struct {
	Key   string
	Value json.RawMessage // the caller's own
	At    time.Time       // when it was recorded, by the wall clock
	Seq   uint64
}

// Journal keeps the results of one run of a harness, one of each key, each durable
// before the next is measured. A harness that was killed opens the journal again
// and does what is missing:
//
//	j, err := annals.OpenJournal(db, "nightly", config)
//	missing, err := j.Resume(keys)
//	for _, key := range missing {
//		err = j.Record(key, measure(key))
//	}
//
// A journal needs no closing, and many can be in a store. It is safe for concurrent
// use, also by several Journals of one name.
type Journal struct {
	JournalReader
	db   *Store
	hash string
}

// OpenJournal opens the journal called name, and makes it if there is none. The
// name is valid UTF-8 of 1 to 255 bytes. The configuration is all that makes
// results comparable: versions, arguments, machine. It is encoded as JSON, and kept
// with the journal together with a hash that does not depend on the order of
// fields. A journal that was begun with another one gives a *ConfigError.
//
// It is durable once OpenJournal returns, as everything of a journal is, whatever
// Options.Sync says.
func OpenJournal(db *Store, name string, config any) (*Journal, error) {
	if err := checkJournalName(name); err != nil {
		return nil, err
	}
	canonical, hash, err := canonicalConfig(config)
	if err != nil {
		return nil, fmt.Errorf("annals: encoding the configuration of journal %q: %w", name, err)
	}
	j := &Journal{JournalReader: JournalReader{src: db, name: name}, db: db, hash: hash}
	return j, j.update(func(tx *Tx) error {
		switch have, err := readHead(tx, name); {
		case err == nil:
			return have.check(name, hash, canonical)
		case !errors.Is(err, ErrNotFound):
			return err
		}
		return PutJSON(tx, headKey(name), journalHead{
			Journal: journalForm, Begun: secondsOf(db.opts.Now()), Hash: hash, Config: canonical,
		})
	})
}

// DeleteJournal takes a journal away with all its results, at once, or returns
// ErrNotFound.
func DeleteJournal(db *Store, name string) error {
	j := &Journal{db: db}
	return j.update(func(tx *Tx) error {
		if _, err := tx.Lookup(headKey(name)); err != nil {
			return noJournal(name, err)
		}
		for e, err := range tx.Scan(Range{Prefix: resultKey(name, ""), KeysOnly: true}) {
			if err != nil {
				return err
			}
			if err := tx.Delete(e.Key); err != nil {
				return err
			}
		}
		return tx.Delete(headKey(name))
	})
}

// update is Store.Update, and durable under every policy.
func (j *Journal) update(fn func(*Tx) error) error {
	err := j.db.Update(fn)
	if err == nil && j.db.opts.Sync != SyncAlways {
		_, err = j.db.Sync(context.Background())
	}
	return err
}

// Resume takes the keys of the whole run and returns those that have no result yet,
// in the order given. How many there are in all is what Info then calls Expected.
// A key that is given twice is an error: it can't have two results.
func (j *Journal) Resume(keys []string) (missing []string, err error) {
	done := make(map[string]bool, len(keys))
	for _, key := range keys {
		if _, twice := done[key]; twice {
			return nil, fmt.Errorf("annals: journal %q: key %q is given twice", j.name, key)
		}
		done[key] = false
	}
	err = j.update(func(tx *Tx) error {
		head, err := j.checkHead(tx)
		if err != nil {
			return err
		}
		expected := len(keys)
		prefix := resultKey(j.name, "")
		for e, err := range tx.Scan(Range{Prefix: prefix, KeysOnly: true}) {
			if err != nil {
				return err
			}
			if _, planned := done[e.Key[len(prefix):]]; planned {
				done[e.Key[len(prefix):]] = true
			} else {
				expected++ // of an earlier plan
			}
		}
		missing = slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return done[key] })
		if head.Expected == expected {
			return nil
		}
		head.Expected = expected
		return PutJSON(tx, headKey(j.name), head)
	})
	if err != nil {
		return nil, err
	}
	return missing, nil
}

// Record keeps the result of a key, encoded as JSON: give text as a string, and JSON
// as a json.RawMessage. Once it returns nil the result is durable and Done. A key
// has one result for ever: where one is there already Record writes nothing and
// returns ErrRecorded, to all but one of concurrent callers.
//
// Another error means that nothing was recorded, but for a *FailedError whose
// outcome is unknown: Done tells after the next Open.
func (j *Journal) Record(key string, result any) error {
	return j.update(func(tx *Tx) error { return j.RecordIn(tx, key, result) })
}

// RecordIn is Record as a part of a transaction, with whatever else is written in
// it: it is all there or none of it. It is durable as the transaction is.
func (j *Journal) RecordIn(tx *Tx, key string, result any) error {
	if key == "" {
		return fmt.Errorf("annals: journal %q: a result needs a key", j.name)
	}
	if _, err := j.checkHead(tx); err != nil {
		return err
	}
	now := j.db.opts.Now()
	switch have, err := tx.Lookup(resultKey(j.name, key)); {
	case err == nil:
		return j.recorded(key, have)
	case !errors.Is(err, ErrNotFound):
		return err
	}
	value, err := encodeJSON(result)
	if err != nil {
		return fmt.Errorf("annals: journal %q: encoding the result of %q: %w", j.name, key, err)
	}
	return PutJSON(tx, resultKey(j.name, key), journalResult{At: secondsOf(now), Result: value})
}

// recorded is what a second Record of a key gets.
func (j *Journal) recorded(key string, have Entry) error {
	since := ""
	if r, err := resultOf(have, key); err == nil {
		since = " since " + r.At.UTC().Format(time.RFC3339)
	}
	return fmt.Errorf("%w: journal %q has a result of %q%s, which stands", ErrRecorded, j.name, key, since)
}

// checkHead makes sure that the journal is still the one that was opened.
func (j *Journal) checkHead(tx *Tx) (journalHead, error) {
	head, err := readHead(tx, j.name)
	if err == nil && head.Hash != j.hash {
		err = fmt.Errorf("%w: %q was deleted and begun anew with %.19s", ErrConfig, j.name, head.Hash)
	}
	return head, err
}

// JournalReader reads a journal. It is safe for concurrent use. One that reads from
// a Reader sees what that had read at its last Refresh; Watch follows by itself.
type JournalReader struct {
	src  JournalSource
	name string
}

// ReadJournal reads the journal called name, of a store, or in another process, also
// while the harness is at work, of a Reader. If there is none the error is
// ErrNotFound.
func ReadJournal(src JournalSource, name string) (*JournalReader, error) {
	if _, err := readHead(src, name); err != nil {
		return nil, err
	}
	return &JournalReader{src: src, name: name}, nil
}

// Journals yields all journals of a store or Reader, the oldest first. One whose
// head can't be read is yielded as an error with its Name, and the loop may go on.
func Journals(src JournalSource) iter.Seq2[JournalInfo, error] {
	return func(yield func(JournalInfo, error) bool) {
		s := src.Snapshot()
		defer s.Close()
		infos, errs, err := readJournals(s)
		if err != nil {
			yield(JournalInfo{}, err)
			return
		}
		for _, info := range infos {
			if !yield(info, errs[info.Name]) {
				return
			}
		}
	}
}

// Name is what the journal is called.
func (j *JournalReader) Name() string { return j.name }

// Info tells how far the journal is.
func (j *JournalReader) Info() (JournalInfo, error) {
	s := j.src.Snapshot()
	defer s.Close()
	head, err := readHead(s, j.name)
	if err != nil {
		return JournalInfo{}, err
	}
	t := tally{}
	for e, err := range s.Scan(Range{Prefix: resultKey(j.name, ""), KeysOnly: true}) {
		if err != nil {
			return JournalInfo{}, err
		}
		t.add(e)
	}
	return t.info(s, j.name, head)
}

// Done tells whether a key has a result.
func (j *JournalReader) Done(key string) (bool, error) {
	_, err := j.src.Lookup(resultKey(j.name, key))
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Result returns the result of a key, or ErrNotFound.
func (j *JournalReader) Result(key string) (Result, error) {
	e, err := j.src.Lookup(resultKey(j.name, key))
	if errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("%w: journal %q has no result of %q", ErrNotFound, j.name, key)
	}
	if err != nil {
		return Result{Key: key}, err
	}
	return resultOf(e, key)
}

// Results yields all results in the order in which they were recorded. One that
// can't be read is yielded as an error with its Key, and the loop may go on.
func (j *JournalReader) Results() iter.Seq2[Result, error] {
	return func(yield func(Result, error) bool) {
		s := j.src.Snapshot()
		defer s.Close()
		j.results(s, 0, s.Seq(), yield)
	}
}

// results yields the results with numbers above after, up to last; false if yield
// wants no more.
func (j *JournalReader) results(s *Snapshot, after, last uint64, yield func(Result, error) bool) bool {
	var list []Entry
	prefix := resultKey(j.name, "")
	for e, err := range s.Scan(Range{Prefix: prefix, KeysOnly: true}) {
		if err != nil {
			return yield(Result{}, err)
		}
		if e.Seq > after && e.Seq <= last {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b Entry) int { return cmp.Compare(a.Seq, b.Seq) })
	for _, e := range list {
		r := Result{Key: e.Key[len(prefix):], Seq: e.Seq}
		e, err := s.Lookup(e.Key)
		if err == nil {
			r, err = resultOf(e, r.Key)
		}
		if !yield(r, err) {
			return false
		}
	}
	return true
}

// Watch yields every result once, first those that are there, then each as soon as
// it is durable, also what another process records if the source is a Reader. It
// ends with an error: ctx.Err(), or ErrNotFound when the journal is deleted.
func (j *JournalReader) Watch(ctx context.Context) iter.Seq2[Result, error] {
	return func(yield func(Result, error) bool) {
		seen := uint64(0)
		for {
			s := j.src.Snapshot()
			last := s.Seq()
			if db, ok := j.src.(*Store); ok {
				last = min(last, db.Durable())
			}
			_, err := readHead(s, j.name)
			more := err == nil && j.results(s, seen, last, yield)
			s.Close()
			if err != nil {
				yield(Result{}, err)
			}
			seen = max(seen, last)
			if !more || !j.follow(ctx, &seen, yield) {
				return
			}
			// Compaction has taken the history that was still to be watched. Results are
			// never overwritten, so what is there now holds all of them.
		}
	}
}

// follow yields the results above the number seen as they come, which rises with them,
// and returns true if their history was compacted away.
func (j *JournalReader) follow(ctx context.Context, seen *uint64, yield func(Result, error) bool) (compacted bool) {
	prefix := resultKey(j.name, "")
	for r, err := range j.src.Watch(ctx, *seen+1) {
		if errors.Is(err, ErrCompacted) {
			return true
		}
		if err == nil && r.Kind == KindDelete && r.Key == headKey(j.name) {
			err = noJournal(j.name, ErrNotFound)
		}
		if err != nil {
			yield(Result{}, err)
			return false
		}
		*seen = r.Seq
		key, ours := strings.CutPrefix(r.Key, prefix)
		if !ours || r.Kind != KindPut {
			continue
		}
		result, err := resultOf(Entry{Value: r.Value, Seq: r.Seq}, key)
		if !yield(result, err) {
			return false
		}
	}
	return false
}

// journalHead and journalResult are the values of a journal's keys.
type journalHead struct {
	Journal  int             `json:"journal"` // the form of its keys and values
	Begun    json.Number     `json:"begun"`
	Hash     string          `json:"hash"`
	Config   json.RawMessage `json:"config"`
	Expected int             `json:"expected,omitempty"`
}

type journalResult struct {
	At     json.Number     `json:"at"`
	Result json.RawMessage `json:"result"`
}

// inKey spells a journal's name so that it has no slash.
var inKey, fromKey = strings.NewReplacer("%", "%25", "/", "%2F"), strings.NewReplacer("%25", "%", "%2F", "/")

func headKey(name string) string        { return journalPrefix + inKey.Replace(name) }
func resultKey(name, key string) string { return headKey(name) + "/" + key }

func checkJournalName(name string) error {
	if len(name) == 0 || len(name) > maxSeries || !utf8.ValidString(name) {
		return fmt.Errorf("%w: the name of journal %.300q must be valid UTF-8 of 1 to %d bytes", ErrTooLarge, name, maxSeries)
	}
	return nil
}

func noJournal(name string, err error) error {
	if errors.Is(err, ErrNotFound) {
		return fmt.Errorf("%w: no journal %q", ErrNotFound, name)
	}
	return err
}

// readHead reads the head of a journal.
func readHead(from interface{ Lookup(string) (Entry, error) }, name string) (h journalHead, err error) {
	e, err := from.Lookup(headKey(name))
	if err != nil {
		return h, noJournal(name, err)
	}
	err = json.Unmarshal(e.Value, &h)
	switch {
	case err != nil || h.Journal == 0:
		return h, fmt.Errorf("annals: key %q holds no journal: %.100q", headKey(name), e.Value)
	case h.Journal > journalForm:
		return h, fmt.Errorf("%w: journal %q has form %d, this version knows %d", ErrNewerFormat, name, h.Journal, journalForm)
	}
	return h, nil
}

func resultOf(e Entry, key string) (Result, error) {
	r := Result{Key: key, Seq: e.Seq}
	var v journalResult
	if err := json.Unmarshal(e.Value, &v); err != nil || v.Result == nil {
		return r, fmt.Errorf("annals: the value of %q is no result of a journal: %.100q", key, e.Value)
	}
	r.Value, r.At = v.Result, timeOfSeconds(v.At)
	return r, nil
}

// tally counts the results of a journal.
type tally struct {
	done   int
	newest Entry // without its value
}

func (t *tally) add(e Entry) {
	t.done++
	if e.Seq > t.newest.Seq {
		t.newest = e
	}
}

func (t *tally) info(s *Snapshot, name string, head journalHead) (JournalInfo, error) {
	info := JournalInfo{
		Name: name, Config: head.Config, Hash: head.Hash, Begun: timeOfSeconds(head.Begun), Expected: head.Expected, Done: t.done,
	}
	if t.done == 0 {
		return info, nil
	}
	e, err := s.Lookup(t.newest.Key)
	if err != nil {
		return info, err
	}
	r, err := resultOf(e, e.Key)
	info.Last = r.At
	return info, err
}

// readJournals reads all journals in one pass over their keys.
func readJournals(s *Snapshot) (infos []JournalInfo, errs map[string]error, err error) {
	tallies, heads := map[string]*tally{}, []string{}
	for e, err := range s.Scan(Range{Prefix: journalPrefix, KeysOnly: true}) {
		if err != nil {
			return nil, nil, err
		}
		name, _, isResult := strings.Cut(e.Key[len(journalPrefix):], "/")
		if !isResult {
			heads = append(heads, fromKey.Replace(name))
			continue
		}
		t := tallies[name]
		if t == nil {
			t = new(tally)
			tallies[name] = t
		}
		t.add(e)
	}
	errs = map[string]error{}
	for _, name := range heads {
		info := JournalInfo{Name: name}
		head, err := readHead(s, name)
		if err == nil {
			t := cmp.Or(tallies[inKey.Replace(name)], new(tally))
			info, err = t.info(s, name, head)
		}
		infos, errs[name] = append(infos, info), err
	}
	slices.SortStableFunc(infos, func(a, b JournalInfo) int { return a.Begun.Compare(b.Begun) })
	return infos, errs, nil
}

// encodeJSON is v as JSON that people can read: nothing is escaped for HTML.
func encodeJSON(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), err
}

// secondsOf spells a time as the log does: Unix seconds with six decimals.
func secondsOf(t time.Time) json.Number {
	micros, sign := t.UnixMicro(), ""
	if micros < 0 {
		micros, sign = -micros, "-"
	}
	return json.Number(fmt.Sprintf("%s%d.%06d", sign, micros/1e6, micros%1e6))
}

// timeOfSeconds reads what secondsOf wrote. What somebody else wrote may be zero.
func timeOfSeconds(n json.Number) time.Time {
	d, err := time.ParseDuration(n.String() + "s")
	if err != nil {
		return time.Time{}
	}
	return time.UnixMicro(d.Microseconds())
}
