package lab

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestUsage: a child's CPU time counts, both while it runs and after it has ended.
func TestUsage(t *testing.T) {
	l := newLab(t, Options{Nodes: []string{"pbx1"}})
	p, err := l.Node(0).Start(Spec{Path: "sh", Args: []string{"-c", "sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; echo over; exec sleep 60"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	must(t, WaitFor(ctx, "the child's end", func() error {
		if p.Output() != "over\n" {
			return errors.New("it runs")
		}
		return nil
	}))
	u, err := p.Usage()
	if err != nil || u.CPU < 10*time.Millisecond || u.Resident < 100<<10 {
		t.Errorf("usage %+v, %v, want more than a tick and more than 100 kB", u, err)
	}
	p.Kill()
	if _, err := p.Usage(); err == nil {
		t.Error("no error for a process that has ended")
	}
}
