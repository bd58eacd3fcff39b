// Command again runs go test, and runs those tests anew that failed while the host of
// this virtual machine held back its cores (`steal` in /proc/stat): such a test measured
// the host. What failed on cores of its own has failed. So has what broke a promise that
// holds on starved cores too.
//
//	go run ./test/again -v -count 1 -p 1 -timeout 25m -- ./test/e2e ./test/unit
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"time"

	"sipalive/test/lab"
)

func main() {
	flags, packages := os.Args[1:], []string(nil)
	if i := slices.Index(flags, "--"); i >= 0 {
		flags, packages = flags[:i], flags[i+1:]
	}
	if len(packages) == 0 {
		fmt.Fprintln(os.Stderr, "usage: again [flags of go test] -- packages, without wildcards")
		os.Exit(2)
	}
	r := &runner{flags: flags, cores: runtime.NumCPU(), out: os.Stdout, goTest: goTest,
		stolen: lab.WatchStolen().Between, awaitCalm: awaitCalm, now: lab.Now}
	passed, err := r.run(packages)
	if err != nil {
		fmt.Fprintln(os.Stderr, "again:", err)
	}
	if err != nil || !passed {
		os.Exit(1)
	}
}

// goTest starts go test. wait returns an error unless it came to its own end, whether its
// tests passed or not.
func goTest(args []string) (events io.Reader, wait func() error, err error) {
	c := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	wait = func() error {
		err := c.Wait()
		if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() == 1 {
			return nil // a test failed
		}
		return err
	}
	return out, wait, c.Start()
}

const (
	calmTry   = time.Second // of computing on all cores: only who asks for a core can be refused one
	calmShare = 50          // a try is calm if at most 1/50 of its time was stolen
	calmPause = 4 * time.Second
	calmMost  = time.Minute
)

// awaitCalm waits, for a minute at most, until the host gives this machine nearly all of
// what it asks for.
func awaitCalm() error {
	for end := lab.Now() + calmMost; ; time.Sleep(calmPause) {
		from := lab.Now()
		compute(calmTry)
		lost, err := lab.WatchStolen().Between(from, lab.Now())
		if err != nil || lost <= calmTry*time.Duration(runtime.NumCPU())/calmShare || lab.Now() > end {
			return err
		}
	}
}

func compute(d time.Duration) {
	done := make(chan struct{})
	for range runtime.NumCPU() {
		go func() {
			for end := lab.Now() + d; lab.Now() < end; {
			}
			done <- struct{}{}
		}()
	}
	for range runtime.NumCPU() {
		<-done
	}
}
