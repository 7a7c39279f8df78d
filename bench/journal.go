package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/annalsdb/annals"
)

// step is one group of workloads on one contestant in one round. Its results are
// recorded together, so that an interrupted run goes on behind the last one.
type step struct {
	round      int
	group      *group
	contestant string
}

// key is what the step is called in the journal; what differs in the number at its
// end is the same measured again.
func (s *step) key() string { return fmt.Sprintf("%s/%s#%d", s.group.name, s.contestant, s.round) }

// keep opens the run's journal: a new one, or the one that was interrupted, which
// must be of the same version, machine and scale.
func (h *harness) keep(db *annals.Store, name string, begun time.Time) (err error) {
	if name == "" {
		name = begun.UTC().Format(time.RFC3339)
	} else if _, err := annals.ReadJournal(db, name); err != nil {
		return err
	}
	config := map[string]string{"version": version(), "machine": machine(), "scale": h.describe()}
	if h.journal, err = annals.OpenJournal(db, name, config); err != nil {
		return err
	}
	var keys []string
	for _, s := range h.steps() {
		keys = append(keys, s.key())
	}
	_, err = h.journal.Resume(keys)
	return err
}

// step makes a step, or takes its results from the journal.
func (h *harness) step(ctx context.Context, s *step) error {
	if h.journal == nil {
		return h.one(ctx, s.round, s.group, s.contestant)
	}
	done, err := h.journal.Done(s.key())
	if err != nil {
		return err
	}
	if done {
		return h.recall(s)
	}
	before := len(h.results)
	if err := h.one(ctx, s.round, s.group, s.contestant); err != nil {
		return fmt.Errorf("%w; -resume %s goes on", err, h.journal.Name())
	}
	return h.journal.Record(s.key(), h.results[before:])
}

// recall adds the results of a step that was made before the interruption.
func (h *harness) recall(s *step) error {
	recorded, err := h.journal.Result(s.key())
	if err != nil {
		return err
	}
	var results []result
	if err := json.Unmarshal(recorded.Value, &results); err != nil {
		return fmt.Errorf("journal %q, %q: %w", h.journal.Name(), s.key(), err)
	}
	for _, r := range results {
		r.Round = s.round
		h.results = append(h.results, r)
	}
	return nil
}
