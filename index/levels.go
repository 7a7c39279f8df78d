package index

// levels is where entries are looked for, the newest first: an overlay that takes
// all changes; overlays that take no more, whose changes are on their way into the
// next table or could not be written to one; and the table, which may be nil.
//
// A set of levels never changes, but for what its first overlay takes in. Who looks
// into one that has been replaced sees all that was there when he began.
type levels struct {
	top    *overlay
	frozen []*overlay // the newest first
	table  *Table
}

// get returns the entry of a key.
func (l *levels) get(key string) (e Entry, ok bool, err error) {
	if r := l.top.find(key); r != 0 {
		return l.top.entry(r, key)
	}
	return l.below(key)
}

// below returns the entry of a key that the top overlay knows nothing of.
func (l *levels) below(key string) (e Entry, ok bool, err error) {
	for _, o := range l.frozen {
		if r := o.find(key); r != 0 {
			return o.entry(r, key)
		}
	}
	if l.table == nil {
		return Entry{}, false, nil
	}
	if e, ok, err = l.table.Get(key); !ok || l.table.isGone(e.Segment) {
		return Entry{}, false, err
	}
	return e, true, nil
}

// entry returns what a change says of its key.
func (o *overlay) entry(r ref, key string) (e Entry, ok bool, err error) {
	e, deleted := entryOf(o.at(r))
	if deleted {
		return Entry{}, false, nil
	}
	e.Key = key
	return e, true, nil
}
