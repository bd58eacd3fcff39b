// Command again runs go test, and runs those tests anew that failed while the host of
// this virtual machine held back its cores (`steal` in /proc/stat): such a test measured
// the host. What failed on cores of its own has failed. So has what saw two holders: that
// promise holds on starved cores too.
//
//	go run ./test/again -v -count 1 -p 1 -timeout 25m -- ./test/e2e ./test/unit
package main

import (
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
		fmt.Fprintln(os.Stderr, "usage: again [flags of go test] -- packages")
		os.Exit(2)
	}
	lab.WatchStolen()
	r := &runner{flags: flags, out: os.Stdout, goTest: goTest, stolen: lab.WatchStolen().Between, calm: awaitCalm, now: lab.Now}
	passed, err := r.run(packages)
	if err != nil {
		fmt.Fprintln(os.Stderr, "again:", err)
	}
	if err != nil || !passed {
		os.Exit(1)
	}
}

// goTest starts go test. Its exit status says nothing that its events do not.
func goTest(args []string) (io.Reader, func() error, error) {
	c := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	return out, c.Wait, c.Start()
}

const (
	calmTry   = time.Second      // of computing on all cores: only who asks for a core can be refused one
	calmPause = 4 * time.Second  // between tries
	calmMost  = 60 * time.Second // to wait
)

// awaitCalm waits until the host gives this machine nearly all of what it asks for.
func awaitCalm() error {
	for end := lab.Now() + calmMost; ; time.Sleep(calmPause) {
		from := lab.Now()
		compute(calmTry)
		lost, err := lab.WatchStolen().Between(from, lab.Now())
		if err != nil || lost <= calmTry*time.Duration(runtime.NumCPU())/50 || lab.Now() > end {
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
