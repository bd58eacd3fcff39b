package agent

import (
	"context"
	"slices"
	"sync"
	"time"

	"sipalive/platform"
	"sipalive/sipcheck"
)

// A watch that failed is opened again after socketsAgain, then after twice as long each
// time. A kernel that has no such notices is asked once per socketsRarely: a module may
// be loaded any day, and asking costs 3 s of waiting.
const (
	socketsAgain  = time.Second
	socketsRarely = time.Minute
)

// sockets makes the kernel's notice that a SIP server's socket died trigger a probe at
// once. While the kernel sends no such notices, the probes' interval has to do.
type sockets struct {
	a             *Agent
	open          openSocketWatch
	again, rarely time.Duration
	moved         chan struct{} // after a reload: other sockets may matter

	mu      sync.Mutex
	missing string // why there are no notices; empty: there are, or nothing is to be watched
}

// openSocketWatch is platform.WatchSocketsDestroyed.
type openSocketWatch func(ctx context.Context, protocols []uint8, ports []uint16,
	match func(platform.SocketDestroyed) bool, notify func(platform.SocketDestroyed)) (socketWatch, error)

type socketWatch interface {
	Close()
	Done() <-chan struct{}
	Err() error
}

func newSockets(a *Agent) *sockets {
	open := func(ctx context.Context, protocols []uint8, ports []uint16,
		match func(platform.SocketDestroyed) bool, notify func(platform.SocketDestroyed)) (socketWatch, error) {
		return platform.WatchSocketsDestroyed(ctx, protocols, ports, match, notify)
	}
	return &sockets{a: a, open: open, again: socketsAgain, rarely: socketsRarely, moved: make(chan struct{}, 1)}
}

// reconfigure has run watch what another configuration asks for.
func (s *sockets) reconfigure() {
	poke(s.moved)
}

// run watches until ctx ends; a watch that fails is opened again.
func (s *sockets) run(ctx context.Context) error {
	for wait := s.again; ctx.Err() == nil; {
		began := time.Now()
		err := s.watch(ctx)
		if time.Since(began) > s.rarely { // the watch had worked, and not only failed slowly
			wait = s.again
		}
		if err == nil {
			continue
		}
		s.lack(err)
		select {
		case <-ctx.Done():
		case <-s.moved:
			wait = s.again
		case <-time.After(wait):
			wait = min(2*wait, s.rarely)
		}
	}
	return nil
}

// watch returns nil when ctx ends or after a reload. Otherwise it returns why there are
// no notices.
func (s *sockets) watch(ctx context.Context) error {
	protocols, ports := s.a.probes.watched()
	if len(ports) == 0 {
		s.works()
		select {
		case <-ctx.Done():
		case <-s.moved:
		}
		return nil
	}
	w, err := s.open(ctx, protocols, ports, func(d platform.SocketDestroyed) bool {
		return slices.ContainsFunc(s.a.probes.here(), func(p *sipcheck.Prober) bool { return served(d, p) })
	}, s.died)
	if err != nil {
		return err
	}
	defer w.Close()
	if s.works() { // no notice came for sockets that died meanwhile
		s.died(platform.SocketDestroyed{})
	}
	select {
	case <-ctx.Done():
	case <-s.moved:
	case <-w.Done():
		return w.Err()
	}
	return nil
}

func (s *sockets) died(d platform.SocketDestroyed) {
	for _, p := range s.a.probes.here() {
		if served(d, p) {
			p.ProbeNow()
		}
	}
}

func served(d platform.SocketDestroyed, p *sipcheck.Prober) bool {
	t := p.Target()
	return d.Served(protocolOf(t.Transport), t.Address)
}

// lack records what is missing, and warns of it once.
func (s *sockets) lack(err error) {
	s.mu.Lock()
	news := s.missing != err.Error()
	s.missing = err.Error()
	s.mu.Unlock()
	if news {
		s.a.recorder.warn("watch for dying sockets", err)
	}
}

// works records that nothing is missing, and reports whether something was until now.
func (s *sockets) works() (again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	again = s.missing != ""
	s.missing = ""
	return again
}

// unwatched returns why there are no notices; empty: nothing is missing.
func (s *sockets) unwatched() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.missing
}
