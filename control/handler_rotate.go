package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
)

// KeyStep is one step of one node in a key rotation.
type KeyStep struct {
	Node string `json:"node"`
	Step string `json:"step"` // "accepts the new key", "seals with the new key", "dropped every key but"
	Key  string `json:"key"`  // name of the new key
}

// rotateLine is one line of the answer: a step or, on the last line, the outcome.
type rotateLine struct {
	*KeyStep
	Outcome *string `json:"outcome,omitempty"`
	Error   string  `json:"error,omitempty"`
}

// rotate reports a key rotation's progress, one JSON object per line. It ends the
// rotation when the client goes away or the server stops.
func (s *Server) rotate(w http.ResponseWriter, r *http.Request) (any, error) {
	without := r.URL.Query()["without"]
	if len(without) > maxWithout {
		return nil, refuse(http.StatusBadRequest, "key rotate without %d nodes: too many (at most %d)", len(without), maxWithout)
	}
	for _, name := range without {
		if err := checkName(name); err != nil {
			return nil, refuse(http.StatusBadRequest, "key rotate: %w", err)
		}
	}
	ctx, out := s.lines(w, r)
	defer out.end()
	text, err := s.agent.RotateKey(ctx, without, func(k KeyStep) { writeLines(out, rotateLine{KeyStep: &k}) })
	last := rotateLine{Outcome: &text}
	if err != nil {
		last.Error = oneLine(err.Error())
	}
	writeLines(out, last)
	return nil, nil
}

// RotateKey makes the cluster change its key, without the given nodes, which are down. It
// calls progress with each step. If ctx ends first, another rotation finishes it.
func (c *Client) RotateKey(ctx context.Context, without []string, progress func(KeyStep)) (string, error) {
	if _, err := c.Status(ctx); err != nil { // finds out early whether an agent answers at all
		return "", err
	}
	body, err := c.roundTrip(ctx, http.MethodPost, pathRotate, url.Values{"without": without}, nil)
	if err != nil {
		return "", err
	}
	defer body.Close()
	for d := json.NewDecoder(io.LimitReader(body, maxAnswer)); ; {
		var l rotateLine
		if err := d.Decode(&l); err != nil {
			return "", c.noAgent(err)
		}
		switch {
		case l.Error != "":
			return "", errors.New(oneLine(l.Error))
		case l.Outcome != nil:
			return oneLine(*l.Outcome), nil
		case l.KeyStep != nil:
			progress(KeyStep{oneLine(l.Node), oneLine(l.Step), oneLine(l.Key)})
		}
	}
}
