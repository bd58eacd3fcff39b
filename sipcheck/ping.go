package sipcheck

import (
	"context"
	"net/netip"
	"time"
)

// PingOptions are options for Ping. The zero value waits up to two seconds.
type PingOptions struct {
	Local     netip.Addr // the address to send from; invalid: the kernel chooses
	Transport Transport
	Security  Security      // for TLS
	Timeout   time.Duration // 0: 2 s; over UDP the packet is repeated after 0.5 and 1.5 s
	UserAgent string        // "": DefaultUserAgent
}

// Ping sends one OPTIONS and waits for its answer, whatever its code. The error is a
// *ProbeError (one line) or ctx's error.
func Ping(ctx context.Context, remote netip.AddrPort, opts PingOptions) (Answer, error) {
	if opts.Timeout <= 0 {
		opts.Timeout = 2 * time.Second
	}
	outcomes := make(chan outcome, 1)
	p := NewProber(Target{
		Name: "ping", Node: remote.Addr().String(), Address: remote, Transport: opts.Transport, UserAgent: opts.UserAgent,
		Timeout: opts.Timeout, Interval: time.Hour, // one probe; the caller ends it
	}, Options{Local: opts.Local, Security: opts.Security, Every: true, Deliver: func(r Result) {
		select {
		case outcomes <- outcome{r.Answer, r.Err}:
		default:
		}
	}})
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	select {
	case o := <-outcomes:
		cancel()
		<-ended
		return o.answer, o.err
	case err := <-ended:
		cancel()
		if err == nil {
			err = ctx.Err()
		}
		return Answer{}, err
	}
}
