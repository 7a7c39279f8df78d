package annals

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/annalsdb/annals/compact"
	"github.com/annalsdb/annals/index"
	"github.com/annalsdb/annals/segment"
)

// Retention says which samples may go. The zero value keeps all of them for ever.
//
// It is a promise about what may go, not about when: background compaction takes samples
// once it is worth it, a segment that holds nothing else at once and others when most of
// them may go, and Store.Compact takes all that may go. Until then they are read as
// ever; from then on they are gone for every reader, also after a crash, and whatever
// the Retention is later. A Snapshot that was taken before still has them. No sample that is
// within the limits goes, and no key. Options.History keeps samples too.
//
// What is in the segment that is being written stays until it is sealed.
type Retention struct {
	// Default is for every series that Series does not name.
	Default Limits
	// Series has the limits of single series, by name, instead of Default.
	Series map[string]Limits
}

// Limits are those of one series. A sample that is beyond any of them may go.
type Limits struct {
	// Age is how old a sample may be, by its own time and the store's clock, which takes a
	// wall clock's word only once it is known for Options.Compaction.Grace, or was recorded
	// by an earlier session. Default: 0, any age.
	Age time.Duration
	// Bytes is how many bytes of lines of the newest samples stay, by their numbers. The
	// newest one always does. Default: 0, all.
	Bytes int64
	// Count is how many of the newest samples stay, by their numbers. Default: 0, all.
	Count int64
}

func (l Limits) check(whose string) error {
	if l.Age < 0 || l.Bytes < 0 || l.Count < 0 {
		return fmt.Errorf("annals: Options.Retention.%s has a negative limit: %+v", whose, l)
	}
	return nil
}

func (r *Retention) check() error {
	if err := r.Default.check("Default"); err != nil {
		return err
	}
	for name, l := range r.Series {
		if err := l.check(fmt.Sprintf("Series[%q]", name)); err != nil {
			return err
		}
	}
	return nil
}

// of returns the limits of a series.
func (r *Retention) of(series string) Limits {
	if l, own := r.Series[series]; own {
		return l
	}
	return r.Default
}

// youngest is the least age that any series has; 0 if none has one.
func (r *Retention) youngest() (age time.Duration) {
	age = r.Default.Age
	for _, l := range r.Series {
		if l.Age > 0 && (age == 0 || l.Age < age) {
			age = l.Age
		}
	}
	return age
}

// before returns the time of the oldest sample that is not too old.
func (l Limits) before(now int64) int64 {
	if l.Age == 0 {
		return math.MinInt64
	}
	return now - l.Age.Microseconds()
}

// retention is what compaction knows of the samples that may go. All but dead is
// guarded by compaction.job.
type retention struct {
	rules Retention
	idle  bool // there are no limits

	horizons map[string]uint64 // by series: samples up to this number are beyond Count or Bytes, for good; never changed in place
	due      map[uint64]int64  // by segment: when it is worth looking again, in T
	looked   time.Time

	mu   sync.Mutex
	dead map[uint64]int64 // by segment: bytes that may go, as it was when somebody looked; never changed in place
}

func newRetention(rules Retention) *retention {
	idle := rules.Default == Limits{}
	for _, l := range rules.Series {
		idle = idle && l == Limits{}
	}
	rules.Series = maps.Clone(rules.Series)
	return &retention{rules: rules, idle: idle, due: map[uint64]int64{}}
}

// garbage returns how many bytes of each segment may go, as far as somebody has looked.
func (r *retention) garbage() map[uint64]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dead
}

// forget takes segments out that are gone.
func (r *retention) forget(segments []uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	dead := maps.Clone(r.dead)
	for _, n := range segments {
		delete(dead, n)
	}
	r.dead = dead
}

// judge returns what tells whether a sample may go, by what is known now. It may be
// called by several goroutines.
func (r *retention) judge(now int64) func(v *segment.View, series string) bool {
	if r.idle {
		return func(*segment.View, string) bool { return false }
	}
	horizons := r.horizons
	return func(v *segment.View, series string) bool {
		return v.Seq <= horizons[series] || v.At < r.rules.of(series).before(now)
	}
}

// lookEvery is how often the store looks whether samples may go, at the most.
const lookEvery = time.Second

// retain looks for samples that may go, and takes the segments in which there is
// nothing else. All says that it is to look at everything.
func (s *Store) retain(ctx context.Context, pace func(context.Context, int) error, all bool) (stats CompactStats, err error) {
	r := s.compaction.retention
	if r.idle || !all && time.Since(r.looked) < lookEvery {
		return stats, nil
	}
	r.looked = time.Now()
	v := s.files.acquire()
	if v == nil {
		return stats, ErrClosed
	}
	defer v.release()
	look := s.survey(v, all)
	for _, f := range look.plan() {
		if err := look.read(ctx, f, pace); err != nil {
			return stats, err
		}
	}
	look.keep()
	if all || look.wholeBytes >= look.worth {
		if stats, err = s.unlinkWhole(ctx, look); err != nil {
			return stats, err
		}
	}
	if !all && look.inOpen() {
		err = s.log.Rotate(ctx)
	}
	return stats, err
}

// unlinkWhole takes segments in which all may go, without rewriting anything.
func (s *Store) unlinkWhole(ctx context.Context, look *survey) (stats CompactStats, err error) {
	if len(look.whole) == 0 {
		return stats, nil
	}
	stats = statsOf(look.whole, &compact.Result{Dropped: look.wholeRecords})
	stats.Unlinked = len(look.whole)
	for _, g := range look.gone {
		stats.Retired += int64(g.Samples)
		stats.RetiredBytes += int64(g.Bytes)
	}
	defer func() {
		s.compaction.note(func(st *CompactionStats) { st.add(stats, err) })
		s.logCompaction(stats, err)
	}()
	return stats, s.adopt(ctx, look.whole, &compact.Result{}, &copies{}, look.gone, func(context.Context, int) error { return nil })
}

// saveRetirement makes INDEX say which samples are about to go, before MANIFEST lets go
// of the segments: who opens the store after a crash in between counts the samples of
// each series right, which is what Limits.Count goes by. Where INDEX can't be saved, for
// want of room, it is removed; then all is counted anew.
func (s *Store) saveRetirement(ctx context.Context, r *index.Retirement) error {
	c := &s.checkpoints
	c.job.Lock()
	defer c.job.Unlock()
	s.index.Retiring(r)
	if !c.exists || r == nil && !c.retiring {
		return nil
	}
	err := s.checkpoint(ctx)
	if err == nil || ctx.Err() != nil || s.log.Failure() != nil {
		return err
	}
	s.opts.Logger.Warn("annals: the index could not be saved, it is removed", "dir", s.dir, "err", err)
	return s.removeIndex()
}

// survey looks which samples of the sealed segments are beyond their limits.
type survey struct {
	*retention
	store *Store
	v     *version
	all   bool
	now   int64 // T, as far as it is trusted
	worth int64 // bytes that are worth the trouble

	series   map[string]*surveyed // those with samples that may go
	counting bool                 // by Count or Bytes
	excess   int64                // bytes beyond Count and Bytes, about
	found    int64                // of them

	dead map[uint64]int64
	due  map[uint64]int64

	whole        []segment.Footer // segments in which all may go
	wholeBytes   int64
	wholeRecords int64
	gone         map[string]index.Gone // what is in them
}

// surveyed is a series that has limits.
type surveyed struct {
	limits         Limits
	before         int64  // samples of an earlier time are too old
	samples, bytes uint64 // that there are
	horizon        uint64

	seen, seenBytes uint64 // of the samples, from the oldest on
}

func (s *Store) survey(v *version, all bool) *survey {
	r := s.compaction.retention
	look := &survey{
		retention: r, store: s, v: v, all: all, now: s.clock.trusted(s.opts.Compaction.Grace),
		series: map[string]*surveyed{}, dead: map[uint64]int64{}, due: map[uint64]int64{}, gone: map[string]index.Gone{},
	}
	_, entries := s.index.Changes()
	look.worth = max(min(s.opts.SegmentSize/2, minGarbage), int64(entries)*20) // INDEX is written for it
	var most int64                                                             // of the bytes of a series that is beyond its limits
	for _, info := range s.index.Snapshot().Series() {
		l := r.rules.of(info.Name)
		if l == (Limits{}) {
			continue
		}
		one := &surveyed{limits: l, before: l.before(look.now), samples: info.Samples, bytes: info.Bytes, horizon: r.horizons[info.Name]}
		look.series[info.Name] = one
		excess := one.excess()
		look.excess += excess
		if excess*8 >= int64(info.Bytes) {
			most += excess
		}
	}
	look.counting = look.excess > 0 && (all || most >= look.worth)
	return look
}

// excess is how many bytes are beyond Count and Bytes, about.
func (o *surveyed) excess() (bytes int64) {
	if o.limits.Bytes > 0 {
		bytes = max(bytes, int64(o.bytes)-o.limits.Bytes)
	}
	if o.limits.Count > 0 && int64(o.samples) > o.limits.Count {
		bytes = max(bytes, int64(float64(o.bytes)*(1-float64(o.limits.Count)/float64(o.samples))))
	}
	return bytes
}

// tooMany tells whether the next sample is beyond Count or Bytes, and counts it. Samples
// of all segments come, the oldest first, or the numbers mean nothing.
func (o *surveyed) tooMany(size uint64) bool {
	left, leftBytes := int64(o.samples)-int64(o.seen), int64(o.bytes)-int64(o.seenBytes) // with this one
	o.seen++
	o.seenBytes += size
	return o.limits.Count > 0 && left > o.limits.Count || o.limits.Bytes > 0 && leftBytes > o.limits.Bytes && left > 1
}

// plan returns the sealed segments that are worth reading, the oldest samples first.
func (look *survey) plan() (list []segment.Footer) {
	if len(look.series) == 0 {
		return nil
	}
	keepFrom := look.store.keepFrom()
	m := look.store.manifest.copy()
	young := Limits{Age: look.rules.youngest()}.before(look.now)
	for _, h := range look.store.index.Holdings() {
		i, sealed := slices.BinarySearchFunc(m.Sealed, h.Segment, bySegment)
		if !sealed || m.Sealed[i].Last >= keepFrom || look.v.byID[h.Segment] == nil {
			break // what comes behind is newer, and may not go yet
		}
		old := h.MinAt < young && (look.all || look.ripe(&h, young))
		if look.counting || old {
			list = append(list, m.Sealed[i])
		} else if d := look.garbage()[h.Segment]; d > 0 {
			look.dead[h.Segment] = d
		}
		if due := look.retention.due[h.Segment]; due > look.now {
			look.due[h.Segment] = due
		}
	}
	return list
}

// ripe tells whether most of a segment is too old, by a guess, and nobody has found out
// lately that it is not.
func (look *survey) ripe(h *index.Holding, young int64) bool {
	if look.retention.due[h.Segment] > look.now {
		return false
	}
	share := float64(young-h.MinAt) / max(float64(h.MaxAt-h.MinAt), 1)
	return share > 1-look.store.opts.Compaction.MinLive
}

// read finds out how much of a segment may go.
func (look *survey) read(ctx context.Context, f segment.Footer, pace func(context.Context, int) error) error {
	if look.counting && !look.all && look.found > look.excess/8*7 {
		look.dead[f.Segment] = look.garbage()[f.Segment] // what is left is thin: it is not worth it
		return nil
	}
	file := look.v.byID[f.Segment]
	p := piece{survey: look, gone: map[string]index.Gone{}, soonest: math.MaxInt64}
	bytes := 0
	problems, err := segment.CheckSealed(file, f.Size(), file.path, look.store.id, f, func(l *segment.Line) error {
		if bytes += len(l.Bytes); bytes > 64<<10 {
			if err := pace(ctx, bytes); err != nil {
				return err
			}
			bytes = 0
		}
		p.add(l)
		return nil
	})
	if err != nil {
		return fmt.Errorf("annals: looking for samples that may go in %q: %w", file.path, err)
	}
	if len(problems) > 0 {
		look.store.noteDamage(problems[0])
		return problems[0]
	}
	look.take(f, &p)
	return nil
}

// piece is what a survey finds in one segment.
type piece struct {
	*survey
	gone    map[string]index.Gone
	dead    int64 // bytes of samples that may go
	alive   int64 // of others
	soonest int64 // when one of these will be too old
	name    []byte
}

func (p *piece) add(l *segment.Line) {
	v := &l.View
	if v.Kind != segment.Sample {
		return
	}
	p.name = v.AppendName(p.name[:0])
	o := p.series[string(p.name)]
	if o == nil {
		p.alive += l.Size
		return
	}
	size := uint64(l.Size)
	if p.counting && o.tooMany(size) {
		o.horizon = max(o.horizon, v.Seq)
		p.found += l.Size
	}
	if v.Seq > o.horizon && v.At >= o.before {
		p.alive += l.Size
		if o.limits.Age > 0 {
			p.soonest = min(p.soonest, v.At+o.limits.Age.Microseconds())
		}
		return
	}
	p.dead += l.Size
	g := p.gone[string(p.name)]
	p.gone[string(p.name)] = index.Gone{Samples: g.Samples + 1, Bytes: g.Bytes + size}
}

// take takes in what was found in a segment.
func (look *survey) take(f segment.Footer, p *piece) {
	look.dead[f.Segment] = p.dead
	look.due[f.Segment] = p.soonest
	if p.dead > 0 {
		look.due[f.Segment] = look.now + max(look.rules.youngest()/16, lookEvery).Microseconds()
	}
	u := look.store.index.Usage(f.Segment)
	if p.alive > 0 || p.dead == 0 || u.Keys > 0 || u.Tombstones > 0 {
		return
	}
	look.whole = append(look.whole, f)
	look.wholeBytes += f.Bytes
	look.wholeRecords += int64(f.Records)
	for name, g := range p.gone {
		sum := look.gone[name]
		look.gone[name] = index.Gone{Samples: sum.Samples + g.Samples, Bytes: sum.Bytes + g.Bytes}
	}
}

// keep keeps what was found for the jobs that follow.
func (look *survey) keep() {
	r := look.retention
	horizons := maps.Clone(r.horizons)
	for name, o := range look.series {
		if o.horizon > 0 {
			if horizons == nil {
				horizons = map[string]uint64{}
			}
			horizons[name] = o.horizon
		}
	}
	r.horizons, r.due = horizons, look.due
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dead = look.dead
}

// inOpen tells whether so much of the segment that is being written may go that it is
// worth ending it.
func (look *survey) inOpen() bool {
	s := look.store
	list := s.index.Holdings()
	if len(list) == 0 || s.manifest.lists(list[len(list)-1].Segment) || s.opts.History > 0 {
		return false
	}
	h := &list[len(list)-1]
	bytes := s.index.Usage(h.Segment).Samples
	if bytes < look.worth {
		return false
	}
	limits := look.rules.Default
	old := len(look.rules.Series) == 0 && h.MaxAt < limits.before(look.now)
	return old || look.counting && look.excess-look.found > max(look.worth, bytes/2)
}

// retiring counts the samples that a job leaves behind because they may go.
type retiring struct {
	mu   sync.Mutex
	gone map[string]index.Gone
}

func (r *retiring) add(series string, size int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.gone[series]
	r.gone[series] = index.Gone{Samples: g.Samples + 1, Bytes: g.Bytes + uint64(size)}
}

func (r *retiring) sum() (samples, bytes int64) {
	for _, g := range r.gone {
		samples, bytes = samples+int64(g.Samples), bytes+int64(g.Bytes)
	}
	return samples, bytes
}
