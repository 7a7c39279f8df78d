package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/annalsdb/annals"
	"github.com/spf13/cobra"
)

// putFlags are the flags of put.
type putFlags struct {
	storeFlags
	key      keyFlag
	maxValue sizeFlag
	ttl      time.Duration
	ifAbsent bool
	ifSeq    uint64
}

func newPut() *cobra.Command {
	f := putFlags{maxValue: 16 << 20}
	cmd := verb("put DIR KEY [VALUE]", "Give a key a value",
		func(cmd *cobra.Command, args []string) error { return runPut(cmd, args, &f) })
	cmd.Long = `Put gives KEY the value VALUE, or else all of standard input, byte for byte: JSON,
text or anything. It is durable once the command ends with status 0.

With --if-absent or --if-seq the status is 1, and nothing is written, if the key
is there already or was changed since.`
	cmd.Example = `  annals put data user:1 '{"name":"Ann","age":41}'
  annals put data photo < photo.jpg
  annals put data session:9 yes --ttl 30m
  annals put data -- -key- -value-`
	f.register(cmd)
	f.key.register(cmd)
	cmd.Flags().Var(&f.maxValue, "max-value", "the largest value that is taken, up to 128MiB")
	cmd.Flags().DurationVar(&f.ttl, "ttl", 0, "how long until the key expires, such as 30m")
	cmd.Flags().BoolVar(&f.ifAbsent, "if-absent", false, "only if the key is not there")
	cmd.Flags().Uint64Var(&f.ifSeq, "if-seq", 0, "only if the key's present value has this sequence number")
	cmd.MarkFlagsMutuallyExclusive("if-absent", "if-seq")
	return cmd
}

func runPut(cmd *cobra.Command, args []string, f *putFlags) error {
	key, err := f.key.key(args[1])
	if err != nil {
		return err
	}
	if cmd.Flags().Changed("ttl") && f.ttl <= 0 {
		return usageError(cmd, fmt.Errorf("--ttl must be more than 0"))
	}
	var value []byte
	if len(args) > 2 {
		value = []byte(args[2])
	} else if value, err = readValue(cmd, int64(f.maxValue)); err != nil {
		return err
	}
	var opts []annals.PutOption
	if f.ttl > 0 {
		opts = append(opts, annals.TTL(f.ttl))
	}
	if f.ifAbsent {
		opts = append(opts, annals.IfAbsent())
	}
	if cmd.Flags().Changed("if-seq") {
		opts = append(opts, annals.IfSeq(f.ifSeq))
	}
	storeOptions := f.options(cmd)
	storeOptions.MaxValue = int(f.maxValue)
	return withStore(args[0], storeOptions, func(store *annals.Store) error {
		err := store.Put(key, value, opts...)
		if errors.Is(err, annals.ErrConflict) {
			return answerNo("%q is there already or was changed; nothing was written", key)
		}
		return err
	})
}

// readValue reads all of standard input.
func readValue(cmd *cobra.Command, limit int64) ([]byte, error) {
	in := interruptible(cmd.Context(), cmd.InOrStdin())
	value, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err == nil && int64(len(value)) > limit {
		err = fmt.Errorf("%w: standard input has more bytes than the %d of --max-value", annals.ErrTooLarge, limit)
	}
	return value, err
}
