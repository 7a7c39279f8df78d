package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/annalsdb/annals"
	"github.com/spf13/cobra"
)

// keepFlag is an annals.Retention on the command line: given once or more often, each
// time the limits of all series, age=30d,bytes=1GiB,count=100000, or those of one, with
// its name and a colon before them.
type keepFlag annals.Retention

func (f *keepFlag) register(cmd *cobra.Command) {
	cmd.Flags().Var(f, "keep", "which samples stay: [SERIES:]age=30d,bytes=1GiB,count=100000, one limit or more, or [SERIES:]all; may be given often (default all)")
}

func (f *keepFlag) retention() annals.Retention { return annals.Retention(*f) }

func (f *keepFlag) Type() string { return "limits" }

func (f *keepFlag) String() string {
	var all []string
	if f.Default != (annals.Limits{}) {
		all = append(all, limitsText(f.Default))
	}
	for _, name := range slices.Sorted(maps.Keys(f.Series)) {
		all = append(all, name+":"+limitsText(f.Series[name]))
	}
	return strings.Join(all, " ")
}

func limitsText(l annals.Limits) string {
	var parts []string
	if l.Age > 0 {
		parts = append(parts, "age="+l.Age.String())
	}
	if l.Bytes > 0 {
		size := sizeFlag(l.Bytes)
		parts = append(parts, "bytes="+size.String())
	}
	if l.Count > 0 {
		parts = append(parts, "count="+strconv.FormatInt(l.Count, 10))
	}
	if parts == nil {
		return "all"
	}
	return strings.Join(parts, ",")
}

func (f *keepFlag) Set(s string) error {
	name, text := "", s
	i := strings.LastIndexByte(s, ':') // a name may have colons, limits have none
	if i >= 0 {
		name, text = s[:i], s[i+1:]
	}
	limits, err := parseLimits(text)
	switch {
	case err != nil:
		return err
	case i < 0:
		f.Default = limits
	case name == "":
		return errors.New("there is no name of a series before the colon")
	case f.Series == nil:
		f.Series = map[string]annals.Limits{name: limits}
	default:
		f.Series[name] = limits
	}
	return nil
}

func parseLimits(s string) (l annals.Limits, err error) {
	if s == "all" {
		return l, nil
	}
	for _, part := range strings.Split(s, ",") {
		kind, value, _ := strings.Cut(part, "=")
		switch kind {
		case "age":
			l.Age, err = parseAge(value)
		case "bytes":
			var size sizeFlag
			err = size.Set(value)
			l.Bytes = int64(size)
		case "count":
			l.Count, err = strconv.ParseInt(value, 10, 64)
			if err != nil || l.Count <= 0 {
				err = errors.New("must be a number of samples such as 1000")
			}
		default:
			err = errors.New("must be age=…, bytes=…, count=… or all")
		}
		if err != nil {
			return l, fmt.Errorf("%q: %w", part, err)
		}
	}
	return l, nil
}

// parseAge reads a duration, which may be in days or weeks.
func parseAge(s string) (time.Duration, error) {
	for unit, d := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		if number, ok := strings.CutSuffix(s, unit); ok {
			n, err := strconv.ParseFloat(number, 64)
			if age := n * float64(d); err == nil && age > 0 && age < 1<<62 {
				return time.Duration(age), nil
			}
			return 0, errors.New("must be a time such as 12h, 30d or 8w")
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, errors.New("must be a time such as 12h, 30d or 8w")
	}
	return d, nil
}
