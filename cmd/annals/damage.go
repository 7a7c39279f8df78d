package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"regexp"

	"github.com/annalsdb/annals"
	"github.com/spf13/cobra"
)

// damageFlag is --skip-damaged of the reading verbs: what is damaged is told on
// standard error and left out, and the verb goes on behind it.
type damageFlag struct {
	skip bool
	told map[string]bool // by place: one line for each, however often it is read
	err  io.Writer
}

func (f *damageFlag) register(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.skip, "skip-damaged", false, "leave out what is damaged, say so, and go on behind it; the status is then 1")
}

// withReader is withReader with that flag.
func (f *damageFlag) withReader(cmd *cobra.Command, dir string, fn func(*annals.Reader) error) error {
	f.told, f.err = map[string]bool{}, cmd.ErrOrStderr()
	reader, err := annals.OpenReader(dir, &annals.ReaderOptions{SkipDamage: f.skip})
	if err != nil {
		return f.hint(err, dir)
	}
	if f.skip {
		for _, damage := range reader.Stats().Damage {
			f.tell(messageText(damage))
		}
	}
	err = fn(reader)
	if closeErr := reader.Close(); err == nil {
		err = closeErr
	}
	if err == nil && len(f.told) > 0 {
		places := "1 place"
		if n := len(f.told); n > 1 {
			places = count(n) + " places"
		}
		err = withHint(answerNo("what is damaged was left out, in %s", places), "%s", repairHint(dir))
	}
	return f.hint(err, dir)
}

// hint tells of the flag where it would help: without MANIFEST nothing can be read.
func (f *damageFlag) hint(err error, dir string) error {
	var damage *annals.CorruptError
	if f.skip || !errors.As(err, &damage) || filepath.Base(damage.Path) == "MANIFEST" {
		return err
	}
	return withHint(err, "%s\n--skip-damaged reads on behind it", repairHint(dir))
}

// passes reports whether a loop is to go on after an error, having told it.
func (f *damageFlag) passes(err error) bool {
	if !f.skip || !errors.Is(err, annals.ErrCorrupt) {
		return false
	}
	f.tell(failureText(err))
	return true
}

// damagedPlace is where it hurts: a file and an offset. What was found on opening and
// what a read met differ in what they know of it beside that.
var damagedPlace = regexp.MustCompile(`"[^"]+" at offset \d+`)

func (f *damageFlag) tell(damage string) {
	place := cmp.Or(damagedPlace.FindString(damage), damage)
	if !f.told[place] {
		f.told[place] = true
		fmt.Fprintf(f.err, "annals: left out: %s\n", damage)
	}
}

// sampler reads samples behind damage.
func (f *damageFlag) sampler(from annals.Sampler) annals.Sampler { return undamaged{from, f} }

type undamaged struct {
	annals.Sampler
	flag *damageFlag
}

func (u undamaged) Samples(series string, w annals.Window) iter.Seq2[annals.Sample, error] {
	return passing(u.flag, u.Sampler.Samples(series, w))
}

func (u undamaged) Series() iter.Seq2[annals.SeriesInfo, error] {
	return passing(u.flag, u.Sampler.Series())
}

// passing is a loop without the errors that the flag passes over.
func passing[T any](f *damageFlag, loop iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for v, err := range loop {
			if !f.passes(err) && !yield(v, err) {
				return
			}
		}
	}
}
