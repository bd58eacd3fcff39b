package agent

import (
	"context"
	"net"
	"time"

	"sipalive/control"
)

// listenAgain is the time between two tries to listen at a taken address: no call depends
// on it.
const listenAgain = 5 * time.Second

// serveWeb serves metrics and the status page. If its address is taken or not there yet,
// that is a warning and does not end the agent.
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
