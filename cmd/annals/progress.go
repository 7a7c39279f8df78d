package main

import (
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
)

// progress is a bar on standard error for long work. The nil progress, which is
// what a standard error that is no terminal gets, shows nothing.
type progress struct {
	cmd   *cobra.Command
	what  string
	bar   *progressbar.ProgressBar // made at the first update, which knows the total
	total int64
	last  time.Time
}

func newProgress(cmd *cobra.Command, what string) *progress {
	if !isTerminal(cmd.ErrOrStderr()) {
		return nil
	}
	return &progress{cmd: cmd, what: what}
}

// update shows that done of total bytes are done. With a total of 0, which is
// unknown, it shows that work goes on.
func (p *progress) update(done, total int64) {
	if p == nil || time.Since(p.last) < 100*time.Millisecond {
		return
	}
	p.last = time.Now()
	if total <= 0 {
		total = -1
	}
	switch {
	case p.bar == nil:
		p.bar = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(p.cmd.ErrOrStderr()),
			progressbar.OptionSetDescription(p.what),
			progressbar.OptionShowBytes(true),
			progressbar.OptionUseIECUnits(true),
			progressbar.OptionSetWidth(30),
			progressbar.OptionClearOnFinish(),
		)
		p.bar.RenderBlank() // what a bar cannot show is not worth an error
	case total != p.total:
		p.bar.ChangeMax64(total)
	}
	p.total = total
	p.bar.Set64(done)
}

// end takes the bar away.
func (p *progress) end() {
	if p != nil && p.bar != nil {
		p.bar.Finish()
	}
}
