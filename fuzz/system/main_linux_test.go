package system

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	seedFlag = flag.Uint64("system.seed", 0, "seed of the randomised tests; 0 takes a new one")
	rounds   = flag.Int("system.rounds", usualRounds, "rounds of the tests that kill at random moments")
	sites    = flag.Int("system.sites", 4, "how many of the sites of each system call are failed and killed at, in each scenario; 0 takes all")
	limits   = flag.Int("system.limits", 60, "how many file size limits are tried; 0 takes one for each byte")
)

// binary is annals, built as this test is, for what does several things at a time.
// plain is annals without the race detector, for everything else, and static, for
// strace to follow.
var binary, plain string

// roleEnv makes this test binary something else than a test; see the roles.
const roleEnv = "ANNALS_SYSTEM_ROLE"

var roles = map[string]func(args []string) error{
	"limited": execLimited,
	"holder":  holdStore,
}

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		if err := roles[role](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	if os.Getuid() == 0 && os.Getenv(mountsEnv) == "" {
		if code, ok := inOwnMounts(); ok {
			os.Exit(code)
		}
	}
	flag.Parse()
	os.Setenv("GORACE", "atexit_sleep_ms=0") // else each process lives on for a second
	os.Exit(buildAndRun(m))
}

// mountsEnv is set where this test binary has a mount namespace of its own.
const mountsEnv = "ANNALS_SYSTEM_MOUNTS"

// inOwnMounts runs this test binary again, with the same arguments, in a mount
// namespace of its own: however it ends, what it has mounted goes with it. It
// returns false where that is not allowed; then it is left to the tests.
func inOwnMounts() (code int, ok bool) {
	runtime.LockOSThread() // Pdeathsig comes when the thread ends that has started the child
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), mountsEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	signals := make(chan os.Signal, 1) // go test asks for all stacks by SIGQUIT when the time is up
	signal.Notify(signals, syscall.SIGQUIT, syscall.SIGINT, syscall.SIGTERM)
	if err := cmd.Start(); err != nil {
		signal.Reset()
		return 0, false
	}
	go func() {
		for s := range signals {
			cmd.Process.Signal(s)
		}
	}()
	cmd.Wait()
	return cmd.ProcessState.ExitCode(), true
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "annals-system-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // other users run it too
		panic(err)
	}
	binary, plain = filepath.Join(dir, "annals"), filepath.Join(dir, "plain")
	if !underRace {
		binary = plain
	} else {
		build(binary, "1", "-race")
	}
	build(plain, "0")
	return m.Run()
}

func build(path, cgo string, flags ...string) {
	args := append([]string{"build", "-C", "../../cmd/annals", "-buildvcs=false", "-o", path}, flags...)
	cmd := exec.Command("go", append(args, ".")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("%v: %v\n%s", cmd, err, out))
	}
}

// seeded returns a source of random numbers and tells how to get the same again.
// What a process has done by the time it is killed is another matter.
func seeded(t testing.TB) *rand.Rand {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("replay with: go test ./fuzz/system -run '^%s$' -system.seed=%d", t.Name(), seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// inParallel runs fn for 0 to n-1 in two goroutines, each of them a test. Each
// case has random numbers of its own.
func inParallel(t *testing.T, rnd *rand.Rand, n int, fn func(t *testing.T, i int, rnd *rand.Rand)) {
	seeds := make([]uint64, n)
	for i := range seeds {
		seeds[i] = rnd.Uint64()
	}
	var next atomic.Int64
	t.Run("parallel", func(t *testing.T) {
		for w := range 2 {
			t.Run(strconv.Itoa(w), func(t *testing.T) {
				t.Parallel()
				for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
					fn(t, int(i), rand.New(rand.NewPCG(seeds[i], 1)))
				}
			})
		}
	})
}

// sample returns n of the numbers 1 to most, in order and spread over all of
// them; all if n is 0.
func sample(rnd *rand.Rand, n, most int) (list []int) {
	if n == 0 || n > most {
		n = most
	}
	for i := range n {
		from, to := most*i/n, most*(i+1)/n
		list = append(list, 1+from+rnd.IntN(to-from))
	}
	return list
}

// needs makes sure that a program is there. One that is missing is a gap in the
// proof: said loudly, and a failure where CI is to install it.
func needs(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		unchecked(t, true, "%s is not installed", program)
	}
}

// unchecked ends a test that can't check anything here.
func unchecked(t testing.TB, fatalInCI bool, format string, args ...any) {
	t.Helper()
	message := fmt.Sprintf("NOT CHECKED: %s: %s", t.Name(), fmt.Sprintf(format, args...))
	fmt.Fprintln(os.Stderr, message)
	if fatalInCI && os.Getenv("CI") != "" {
		require.FailNow(t, message)
	}
	t.Skip(message)
}

// outcome is how a run of annals ended.
type outcome struct {
	stdout, stderr string
	code           int            // -1 if a signal ended it
	signal         syscall.Signal // that signal
}

// patience bounds every run: one that takes longer hangs.
const patience = 2 * time.Minute

// annals runs annals to its end.
func annals(t testing.TB, args ...string) outcome {
	t.Helper()
	return runAll(t, append([]string{plain}, args...), nil)
}

// must is annals for a run that succeeds. It returns what was printed.
func must(t testing.TB, args ...string) string {
	t.Helper()
	o := annals(t, args...)
	require.Zero(t, o.code, "annals %q: %s", args, o.stderr)
	return o.stdout
}

// runAll runs a command to its end, with env added to the environment.
func runAll(t testing.TB, command, env []string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := prepareCommand(ctx, command, env)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	require.NoError(t, ctx.Err(), "%q hangs", command)
	return ended(t, cmd, err, stdout.String(), stderr.String())
}

// prepareCommand makes a command that ends with ctx, together with all that it has
// started: a traced process outlives its strace.
func prepareCommand(ctx context.Context, command, env []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// ended makes the outcome of a command. Whatever happens, annals neither panics
// nor races.
func ended(t testing.TB, cmd *exec.Cmd, err error, stdout, stderr string) outcome {
	t.Helper()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	for _, bad := range []string{"panic", "goroutine ", "fatal error", "DATA RACE", "SIGSEGV", "SIGBUS"} {
		require.NotContains(t, stderr, bad, "%q", cmd.Args)
	}
	o := outcome{stdout: stdout, stderr: stderr, code: cmd.ProcessState.ExitCode()}
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		o.signal = status.Signal()
	}
	return o
}

// failed makes sure that a run ended with status 2, said why in its last words,
// and was not ended by a signal.
func (o outcome) failed(t testing.TB, why string) {
	t.Helper()
	require.Equal(t, 2, o.code, "ended by %v, stderr %q", o.signal, o.stderr)
	require.Contains(t, o.stderr, why)
	require.True(t, strings.Contains("\n"+o.stderr, "\nannals: "), "no message: %q", o.stderr)
}
