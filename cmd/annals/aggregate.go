package main

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/annalsdb/annals"
	"github.com/spf13/cobra"
)

// aggregateFlags are the flags of verbs that sum up samples.
type aggregateFlags struct {
	every everyFlag
	aggs  aggFlag
	field string
	csv   bool
}

func (f *aggregateFlags) register(cmd *cobra.Command) {
	cmd.Flags().Var(&f.every, "every", "one line for each such stretch of time, such as 10s, 1m, 1h or 1d, from midnight UTC on")
	cmd.Flags().Var(&f.aggs, "agg", "what to say of each stretch: count, min, max, avg, sum, first, last, stddev, p50, p99.9 and so on (default min,max,avg,count)")
	cmd.Flags().StringVar(&f.field, "field", "val", "where the number stands: val, val.t, val.disk.0.free")
	cmd.Flags().BoolVar(&f.csv, "csv", false, "CSV instead of JSON, for --every and --agg")
}

// given tells whether samples are to be summed up.
func (f *aggregateFlags) given() bool { return f.every != 0 || len(f.aggs) > 0 }

// errEmptyField is the answer to a variable that was not set.
var errEmptyField = errors.New("--field is empty: val is the value itself, val.t its field t")

// check refuses flags that do not go together.
func (f *aggregateFlags) check(cmd *cobra.Command, w annals.Window) error {
	switch {
	case f.field == "":
		return errEmptyField
	case f.given() && w.Reverse:
		return errors.New("--reverse does not go with --every and --agg: they come in the order of time")
	case !f.given() && (cmd.Flags().Changed("field") || f.csv):
		return errors.New("--field and --csv go with --every or --agg; annals export --format csv gives the samples")
	}
	return nil
}

func (f *aggregateFlags) aggregation(w annals.Window) annals.Aggregation {
	a := annals.Aggregation{Every: time.Duration(f.every), Field: f.field, Window: w}
	for _, agg := range f.list() {
		a.Quantiles = a.Quantiles || agg.quantile
	}
	return a
}

func (f *aggregateFlags) list() []aggregate {
	if len(f.aggs) == 0 {
		var all aggFlag
		_ = all.Set("min,max,avg,count")
		return all
	}
	return f.aggs
}

// everyFlag is a length of time on the command line, with d for days of 24 hours.
type everyFlag time.Duration

func (f *everyFlag) Type() string { return "duration" }

func (f *everyFlag) String() string {
	d := time.Duration(*f)
	switch {
	case d == 0:
		return ""
	case d%(24*time.Hour) == 0:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	text := d.String() // 1h0m0s
	if cut := strings.TrimSuffix(text, "m0s"); cut != text {
		text = cut + "m"
	}
	if cut := strings.TrimSuffix(text, "h0m"); cut != text {
		text = cut + "h"
	}
	return text
}

func (f *everyFlag) Set(s string) error {
	d, err := parseDuration(s)
	if err != nil || d <= 0 || d%time.Microsecond != 0 {
		return errors.New("must be a time such as 500ms, 10s, 1m, 1h or 1d")
	}
	*f = everyFlag(d)
	return nil
}

// parseDuration reads a length of time as Go spells it, or in days of 24 hours.
func parseDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err
	}
	return time.ParseDuration(s)
}

// aggregate is one number that sums up a bucket.
type aggregate struct {
	name     string
	of       func(annals.Bucket) float64
	quantile bool
}

var aggregates = map[string]func(annals.Bucket) float64{
	"count":  func(b annals.Bucket) float64 { return float64(b.Count) },
	"min":    func(b annals.Bucket) float64 { return b.Min.Value },
	"max":    func(b annals.Bucket) float64 { return b.Max.Value },
	"first":  func(b annals.Bucket) float64 { return b.First.Value },
	"last":   func(b annals.Bucket) float64 { return b.Last.Value },
	"avg":    annals.Bucket.Mean,
	"sum":    annals.Bucket.Sum,
	"stddev": annals.Bucket.Stddev,
}

// aggFlag is a list of aggregates on the command line.
type aggFlag []aggregate

func (f *aggFlag) Type() string { return "list" }

func (f *aggFlag) String() string {
	var names []string
	for _, a := range *f {
		names = append(names, a.name)
	}
	return strings.Join(names, ",")
}

func (f *aggFlag) Set(s string) error {
	for name := range strings.SplitSeq(s, ",") {
		a, ok := parseAggregate(name)
		if !ok {
			return fmt.Errorf("%q is none of count, min, max, avg, sum, first, last, stddev, and pN with N from 0 to 100", name)
		}
		if slices.ContainsFunc(*f, func(other aggregate) bool { return other.name == name }) {
			return fmt.Errorf("%q comes twice", name)
		}
		*f = append(*f, a)
	}
	return nil
}

func parseAggregate(name string) (aggregate, bool) {
	if of := aggregates[name]; of != nil {
		return aggregate{name: name, of: of}, true
	}
	text, ok := strings.CutPrefix(name, "p")
	if !ok || strings.Trim(text, "0123456789.") != "" {
		return aggregate{}, false
	}
	percent, err := strconv.ParseFloat(text, 64)
	if err != nil || percent > 100 {
		return aggregate{}, false
	}
	return aggregate{name: name, quantile: true, of: func(b annals.Bucket) float64 { return b.Quantile(percent / 100) }}, true
}

// stoppable ends a loop over samples when a context does.
type stoppable struct {
	annals.Sampler
	done func() error
}

func (s stoppable) Samples(series string, w annals.Window) iter.Seq2[annals.Sample, error] {
	return func(yield func(annals.Sample, error) bool) {
		for sample, err := range s.Sampler.Samples(series, w) {
			if done := s.done(); done != nil {
				yield(annals.Sample{}, done)
				return
			}
			if !yield(sample, err) {
				return
			}
		}
	}
}

// eachBucket calls fn for the buckets of a series that hold a number, and says on
// standard error how many samples have none. A series that is not there, and one
// without any number, are answers.
func eachBucket(cmd *cobra.Command, from annals.Sampler, series string, a annals.Aggregation, fn func(annals.Bucket) error) error {
	var skipped, numbers uint64
	for b, err := range annals.Aggregate(stoppable{from, cmd.Context().Err}, series, a) {
		if err != nil {
			return err
		}
		skipped += b.Skipped
		if b.Count == 0 {
			continue
		}
		numbers += b.Count
		if err := fn(b); err != nil {
			return err
		}
	}
	switch {
	case numbers == 0 && skipped == 0:
		return seriesExists(from, series)
	case numbers == 0:
		err := answerNo("none of %s samples of %q has a number at %s", count(skipped), series, a.Field)
		if hint := numberHint(from, series, a.Window); hint != "" {
			err = withHint(err, "%s", hint)
		}
		return err
	case skipped > 0:
		fmt.Fprintf(cmd.ErrOrStderr(), "annals: %s of %s samples of %s have no number at %s and are left out\n",
			count(skipped), count(skipped+numbers), printable(plain(series)), plain(a.Field))
	}
	return nil
}

// writeBuckets writes a line for each bucket: a sample of the same series at the
// bucket's beginning, as annals load reads it, or a row of CSV.
func writeBuckets(cmd *cobra.Command, out *output, from annals.Sampler, series string, w annals.Window, f *aggregateFlags) error {
	list := f.list()
	if !f.csv {
		return eachBucket(cmd, from, series, f.aggregation(w), func(b annals.Bucket) error {
			s := annals.Sample{Series: series, At: b.Start, Value: bucketJSON(list, b)}
			return out.object(s.AppendJSON)
		})
	}
	rows := csv.NewWriter(out)
	header := []string{"time"}
	for _, a := range list {
		header = append(header, a.name)
	}
	var row []string // a series that is not there gets no header
	err := eachBucket(cmd, from, series, f.aggregation(w), func(b annals.Bucket) error {
		if row == nil {
			if err := rows.Write(header); err != nil {
				return err
			}
		}
		row = bucketRow(list, b)
		return rows.Write(row)
	})
	if err == nil && row == nil {
		err = rows.Write(header)
	}
	rows.Flush()
	return errors.Join(err, rows.Error())
}

func bucketJSON(list []aggregate, b annals.Bucket) []byte {
	text := []byte{'{'}
	for i, a := range list {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(strconv.AppendQuote(text, a.name), ':')
		text = append(text, spellNumber(a.of(b), "null")...)
	}
	return append(text, '}')
}

func bucketRow(list []aggregate, b annals.Bucket) []string {
	row := []string{b.Start.UTC().Format("2006-01-02T15:04:05.999999Z07:00")}
	for _, a := range list {
		row = append(row, spellNumber(a.of(b), ""))
	}
	return row
}

// spellNumber spells a number as JSON does; one that JSON has no spelling for, as the
// deviation of a single number, is none.
func spellNumber(x float64, none string) string {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return none
	}
	text, _ := json.Marshal(x) // a finite number has a spelling
	return string(text)
}

// seriesExists is an answer if there is no such series.
func seriesExists(from annals.Sampler, series string) error {
	for info, err := range from.Series() {
		if err != nil || info.Name == series {
			return err
		}
	}
	return answerNo("no series %q", series)
}
