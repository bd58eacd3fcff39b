package agent

import (
	"context"
	"net"
	"time"

	"sipalive/control"
)

// listenAgain is how often a taken address is tried: nobody's calls hang on it.
const listenAgain = 5 * time.Second

// serveWeb serves metrics and the status page. An address that is taken, or not
// there yet, is a warning and not the agent's end.
func (a *Agent) serveWeb(ctx context.Context) error {
	at := a.Parts.Config.Control.Listen
	if !at.IsValid() {
		<-ctx.Done()
		return nil
	}
	web := control.NewWeb(a.server, a.Version)
	for {
		l, err := net.Listen("tcp", at.String())
		if err == nil {
			err = web.Serve(ctx, l)
		}
		if err != nil {
			a.recorder.warn("serve metrics and the status page", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(listenAgain):
		}
	}
}
