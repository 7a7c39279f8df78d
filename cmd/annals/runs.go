package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"text/tabwriter"
	"time"

	"github.com/annalsdb/annals"
	"github.com/spf13/cobra"
)

func newRuns() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "runs VERB DIR",
		Short: "Keep the runs of benchmarks, and compare them",
		Long: `Runs keeps benchmark results. A run is a journal of the store: what "annals runs add" has
read, or what a program has recorded with annals.OpenJournal, also one that is at work now.
Its head is the key journal/NAME, its results are the keys journal/NAME/....`,
		Example: `  go test -bench . -count 10 | annals runs add data v1.4
  annals runs list data
  annals runs compare data v1.3 v1.4
  annals runs plot data --metric ns/op`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError(cmd, fmt.Errorf("unknown command %q", args[0]))
			}
			return usageError(cmd, errors.New("VERB is missing: add, list, show, compare, plot or delete"))
		},
	}
	for _, sub := range []*cobra.Command{newRunsAdd(), newRunsList(), newRunsShow(), newRunsCompare(), newRunsPlot(), newRunsDelete()} {
		sub.DisableFlagsInUseLine = true
		cmd.AddCommand(sub)
	}
	return cmd
}

func newRunsList() *cobra.Command {
	var asJSON bool
	cmd := verb("list DIR", "List the runs, and how far they are", func(cmd *cobra.Command, args []string) error {
		return withReader(args[0], func(reader *annals.Reader) error {
			out := newOutput(cmd)
			list := listRuns
			if asJSON {
				list = listRunsJSON
			}
			return out.closing(list(out, reader))
		})
	})
	cmd.Example = `  annals runs list data
  annals runs list data --json | jq -r 'select(.done < .expected).name'`
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line instead of a table")
	return cmd
}

// listRuns goes on behind a run that can't be read, and fails at the end.
func listRuns(out *output, reader *annals.Reader) (failed error) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "RUN\tRESULTS\tBEGUN\tLAST\tCONFIG")
	for info, err := range annals.Journals(reader) {
		if err != nil {
			failed = cmp.Or(failed, err)
			continue
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", printable(info.Name), progressOf(info), localTime(info.Begun), localTime(info.Last), clipped(string(info.Config), 60))
	}
	return cmp.Or(table.Flush(), failed)
}

// progressOf is how many results there are, and of how many.
func progressOf(info annals.JournalInfo) string {
	if info.Expected == 0 {
		return count(info.Done)
	}
	return fmt.Sprintf("%s of %s", count(info.Done), count(info.Expected))
}

func localTime(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}

func clipped(text string, limit int) string {
	runes := []rune(plain(text))
	if len(runes) > limit {
		return string(runes[:limit-1]) + "…"
	}
	return string(runes)
}

func listRunsJSON(out *output, reader *annals.Reader) (failed error) {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	for info, err := range annals.Journals(reader) {
		if err != nil {
			failed = cmp.Or(failed, err)
			continue
		}
		var last json.Number
		if info.Done > 0 {
			last = unixSeconds(info.Last)
		}
		err = enc.Encode(struct {
			Name     string          `json:"name"`
			Done     int             `json:"done"`
			Expected int             `json:"expected,omitempty"`
			Begun    json.Number     `json:"begun"`
			Last     json.Number     `json:"last,omitempty"`
			Hash     string          `json:"hash"`
			Config   json.RawMessage `json:"config"`
		}{info.Name, info.Done, info.Expected, unixSeconds(info.Begun), last, info.Hash, info.Config})
		if err != nil {
			return err
		}
	}
	return failed
}

func newRunsDelete() *cobra.Command {
	var f storeFlags
	cmd := verb("delete DIR NAME", "Take a run away with all its results", func(cmd *cobra.Command, args []string) error {
		return withExisting(args[0], f.options(cmd), func(store *annals.Store) error {
			return noSuchRun(annals.DeleteJournal(store, args[1]), args[1], args[0])
		})
	})
	cmd.Long = `Delete takes the run away at once, all of it. The status is 1 if there is no such run.`
	cmd.Example = `  annals runs delete data v1.3`
	f.register(cmd)
	return cmd
}

// noSuchRun makes an answer of the error that there is no such run.
func noSuchRun(err error, name, dir string) error {
	if errors.Is(err, annals.ErrNotFound) {
		return answerNo("no run %q in %q", name, dir)
	}
	return err
}

// benchRun is a run as it is compared, shown and drawn.
type benchRun struct {
	annals.JournalInfo
	measured []measured
	other    int // results without numbers
}

// readRun reads the results of a run.
func readRun(reader *annals.Reader, dir, name string) (*benchRun, error) {
	journal, err := annals.ReadJournal(reader, name)
	if err != nil {
		return nil, noSuchRun(err, name, dir)
	}
	info, err := journal.Info()
	if err != nil {
		return nil, err
	}
	r := &benchRun{JournalInfo: info}
	for result, err := range journal.Results() {
		if err != nil {
			return nil, err
		}
		found := measurements(result.Key, result.Value)
		if len(found) == 0 {
			r.other++
		}
		r.measured = append(r.measured, found...)
	}
	return r, nil
}

// tellOther says how many results have no numbers.
func tellOther(cmd *cobra.Command, runs ...*benchRun) {
	for _, r := range runs {
		if r.other > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s without numbers; annals runs show --json prints them\n", printable(r.Name), someResults(r.other))
		}
	}
}

// regexpFlag is a regular expression on the command line; nil matches everything.
type regexpFlag struct{ *regexp.Regexp }

func (f *regexpFlag) Type() string { return "regexp" }

func (f *regexpFlag) String() string {
	if f.Regexp == nil {
		return ""
	}
	return f.Regexp.String()
}

func (f *regexpFlag) Set(s string) (err error) {
	var bad *syntax.Error
	if f.Regexp, err = regexp.Compile(s); errors.As(err, &bad) {
		return fmt.Errorf("must be a regular expression (%s)", bad.Code)
	}
	return err
}

func (f *regexpFlag) matches(s string) bool { return f.Regexp == nil || f.MatchString(s) }
